"""notifier subscribe"""

import argparse
import os
import stat
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from notifier.cli.connection import with_client
from notifier.cli.cursor_file import CursorFile
from notifier.cli.status import FAILED, OK, USAGE, notice

if TYPE_CHECKING:
    from notifier.client import Client, Gap, NotifierClientError

# With --once: longer than a restart or a slow line takes, shorter than what cron runs every few minutes.
ONCE_PATIENCE_S = 60.0
# A server that is away for a night must not fill a log.
NOTICE_EVERY_S = 60.0


def subscribe(arguments: argparse.Namespace) -> int:
    begin = {
        "after": arguments.after,
        "since": arguments.since,
        "last": arguments.last,
        "last_each": arguments.last_each,
    }
    kept = CursorFile(arguments.state) if arguments.state else None
    try:
        if kept and (cursor := kept.load()):
            begin = {"after": cursor}
    except (OSError, ValueError) as error:
        notice(str(error))
        return USAGE
    heard = time.monotonic()
    notice_next = 0.0

    def tell_retry(error: "NotifierClientError", delay_s: float) -> None:
        nonlocal notice_next
        now = time.monotonic()
        if arguments.once and now + delay_s > heard + ONCE_PATIENCE_S:
            raise error
        if now >= notice_next:
            notice_next = now + NOTICE_EVERY_S
            notice(f"{error.detail} Asking again in {delay_s:.1f} s, and so on.")

    async def follow(client: "Client") -> int:
        nonlocal heard
        subscription = client.subscribe(
            arguments.topics,
            **begin,
            once=arguments.once,
            wait=arguments.wait,
            limit=arguments.limit,
            headers=arguments.headers,
            on_gap=_tell_gap,
            on_retry=tell_retry,
        )
        left = arguments.count
        async with aclosing(subscription.batches()) as batches:
            async for batch in batches:
                heard = time.monotonic()
                messages = batch.messages[:left]
                sys.stdout.buffer.writelines(message.raw.encode() + b"\n" for message in messages)
                sys.stdout.buffer.flush()
                left = None if left is None else left - len(messages)
                if kept:
                    _sync_output()
                    kept.save(messages[-1].id if left == 0 else batch.cursor)
                if left == 0:
                    break
        return OK

    async def until_reader_ends(client: "Client") -> int:
        import asyncio

        from notifier.cli.end_of_reader import EndOfReader

        with EndOfReader() as reader:
            try:
                return await follow(client)
            except asyncio.CancelledError:
                if not reader.gone:
                    raise
        return OK

    try:
        return with_client(arguments.url, until_reader_ends)
    except BrokenPipeError:
        raise
    except OSError as error:
        notice(f"{error.filename or 'The output'} cannot be written: {error.strerror}.")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more at exit
        return FAILED


def _sync_output() -> None:
    """What is appended to a file must survive what the cursor survives."""
    output = sys.stdout.fileno()
    if stat.S_ISREG(os.fstat(output).st_mode):
        os.fsync(output)


def _tell_gap(gap: "Gap") -> None:
    if gap.reason == "reset":
        notice(f"gap: this is another database, or an older one, than the one that issued {gap.after}.")
    else:
        notice(f"gap: messages after {gap.after} can no longer be delivered ({gap.reason}).")
