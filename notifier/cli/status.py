"""What a command tells besides its output: a status for scripts, and sentences on standard error for people."""

import os
import sys

OK = 0
FAILED = 1
USAGE = 2
UNAVAILABLE = 3
UNKNOWN = 4
INTERRUPTED = 130

EXPLAINED = """
exit status:
  0    done
  1    refused or failed; standard error says why
  2    wrong arguments or settings
  3    the server, the database or a receiver cannot be reached now: try again
  4    publish: no answer came, the message may be stored or not
  130  ended by Ctrl-C
"""


def notice(sentence: str) -> None:
    sys.stderr.write(f"notifier: {sentence}\n")
    sys.stderr.flush()


def unwritable(error: OSError) -> int:
    """Of the output, or of the file that `error` names."""
    notice(f"{error.filename or 'The output'} cannot be written: {error.strerror}.")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more at exit
    return FAILED
