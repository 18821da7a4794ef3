"""notifier subscribe"""

import argparse
import os
import stat
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from notifier.cli.connection import Patience, tell_gap, with_client
from notifier.cli.cursor_file import CursorFile
from notifier.cli.status import OK, USAGE, notice, unwritable

if TYPE_CHECKING:
    from notifier.client import Client


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
    patience = Patience(once=arguments.once)

    async def follow(client: "Client") -> int:
        subscription = client.subscribe(
            arguments.topics,
            **begin,
            once=arguments.once,
            wait=arguments.wait,
            limit=arguments.limit,
            headers=arguments.headers,
            stream=arguments.stream,
            on_gap=tell_gap,
            on_retry=patience.retry,
        )
        left = arguments.count
        async with aclosing(subscription.batches()) as batches:
            async for batch in batches:
                patience.heard()
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
        return unwritable(error)


def _sync_output() -> None:
    """What is appended to a file must survive what the cursor survives."""
    output = sys.stdout.fileno()
    if stat.S_ISREG(os.fstat(output).st_mode):
        os.fsync(output)
