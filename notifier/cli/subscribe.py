"""notifier subscribe"""

import argparse
import asyncio
import os
import select
import stat
import sys
from typing import TYPE_CHECKING

from notifier.cli.connection import with_client
from notifier.cli.status import OK, notice

if TYPE_CHECKING:
    from notifier.client import Client, Gap, NotifierClientError


def subscribe(arguments: argparse.Namespace) -> int:
    async def follow(client: "Client") -> int:
        messages = client.subscribe(
            arguments.topics,
            after=arguments.after,
            since=arguments.since,
            last=arguments.last,
            on_gap=_tell_gap,
            on_retry=_tell_retry,
        )
        count = 0
        with _EndOfReader() as reader:
            try:
                async for message in messages:
                    sys.stdout.buffer.write(message.raw.encode() + b"\n")
                    sys.stdout.buffer.flush()
                    count += 1
                    if count == arguments.count:
                        break
            except asyncio.CancelledError:
                if not reader.gone:
                    raise
            finally:
                await messages.aclose()
        return OK

    return with_client(arguments.url, follow)


class _EndOfReader:
    """Cancels the task that enters it when the reader of our output is gone.

    Writing would fail then, but on a quiet topic `notifier subscribe quiet | head -1` would hang until then.
    """

    def __init__(self) -> None:
        self.gone = False
        self._output = sys.stdout.fileno()
        self._watching = stat.S_ISFIFO(os.fstat(self._output).st_mode)

    def __enter__(self) -> "_EndOfReader":
        self._task = asyncio.current_task()
        if self._watching:
            asyncio.get_running_loop().add_reader(self._output, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        if self._watching:
            asyncio.get_running_loop().remove_reader(self._output)

    def _look(self) -> None:
        poll = select.poll()
        poll.register(self._output, 0)  # errors are always reported, and nothing else is of interest
        self.gone = bool(poll.poll(0))
        asyncio.get_running_loop().remove_reader(self._output)
        if self.gone and self._task:
            self._task.cancel()


def _tell_gap(gap: "Gap") -> None:
    if gap.reason == "reset":
        notice(f"gap: this is another database, or an older one, than the one that issued {gap.after}.")
    else:
        notice(f"gap: messages after {gap.after} can no longer be delivered ({gap.reason}).")


def _tell_retry(error: "NotifierClientError", delay_s: float) -> None:
    notice(f"{error.detail} Asking again in {delay_s:.1f} s.")
