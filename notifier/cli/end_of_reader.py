"""Noticing that nobody reads what a command prints."""

import asyncio
import os
import select
import stat
import sys


class EndOfReader:
    """Cancels the task that enters it when the reader of our output is gone.

    Writing would fail then, but on a quiet topic `notifier subscribe quiet | head -1` would hang until then.
    """

    def __init__(self) -> None:
        self.gone = False
        self._output = sys.stdout.fileno()
        self._watching = stat.S_ISFIFO(os.fstat(self._output).st_mode)

    def __enter__(self) -> "EndOfReader":
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
