"""The command line, and the only reader of arguments and environment. Each command translates and calls.

What a command needs is imported when it runs: a shell script that publishes must not wait for the server's modules.
"""

import argparse
import os
import sys
from collections.abc import Callable

from notifier.cli.parser import make_parser
from notifier.cli.status import FAILED, INTERRUPTED, OK, notice


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    arguments = make_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        status = command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "notifier").partition(".")[0] == "notifier":
            raise
        # The base package is the client.
        notice(f"This command needs the server's packages ({error.name} is missing): pip install 'pg-notifier[server]'")
        return FAILED
    except BrokenPipeError:
        # The reader of our output has closed it. Python's own flush at exit must not complain about that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return status
