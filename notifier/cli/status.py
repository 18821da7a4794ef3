"""What a command tells besides its output: a status for scripts, and sentences on standard error for people."""

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
  3    the server or the database cannot be reached now, nothing was done: try again
  4    publish: no answer came, the message may be stored or not
  130  ended by Ctrl-C
"""


def notice(sentence: str) -> None:
    sys.stderr.write(f"notifier: {sentence}\n")
    sys.stderr.flush()
