"""The load client: a process of its own, so that what it costs is not what is measured."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.server import ROOT

# A round lasts a few seconds, thousands of slow clients half a minute; one that takes so long hangs.
ROUND_S = 90.0
MAX_LINE = 16 * 1024 * 1024


class Load:
    """Runs rounds, one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def kill(self) -> None:
        """Everything that it holds is closed at once; when this returns, it is."""
        self._process.kill()
        await self._process.wait()

    async def run(self, round_: str, **arguments: object) -> dict[str, Any]:
        """What the function `round_` of `bench.load.__main__` returns. RuntimeError with what went wrong there."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([round_, arguments]).encode() + b"\n")
        async with asyncio.timeout(ROUND_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("The load client has ended.")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"The load client failed:\n{answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result


@asynccontextmanager
async def loading() -> AsyncIterator[Load]:
    """A load client. It ends when its standard input does, so also when we are killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE,
        cwd=ROOT,
        start_new_session=True,  # a Ctrl-C is ours to handle
    )
    try:
        yield Load(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
