"""Programs under test, each a process of its own that cannot outlive the run, not even a killed one."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from notifier.embedded.account import Account
from notifier.embedded.child import Child

ROOT = Path(__file__).resolve().parent.parent
START_S = 30.0

NOTIFIER = "notifier", "serve"  # as shipped
BATCHES_OF_ONE = ("bench.batches_of_one",)
CEILING = ("bench.ceiling",)
BLIND = ("bench.blind",)

_SERVES = re.compile(r"serves on http://127\.0\.0\.1:([0-9]+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A program that serves on `port` of the loopback, in the process `pid`."""

    port: int
    pid: int


@asynccontextmanager
async def running(program: tuple[str, ...], database: str = "") -> AsyncIterator[Server]:
    """Run `python -m program` and wait until it says where it serves."""
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as folder:
        log = Path(folder, "log")
        me = Account("", os.geteuid(), os.getegid())
        environment = {"PYTHONPATH": str(ROOT), "PORT": "0", "DATABASE_URL": database}
        child = Child([sys.executable, "-m", *program], me, log, environment)
        try:
            async with asyncio.timeout(START_S):
                while not (found := _SERVES.search(log.read_text())):
                    if not child.runs():
                        raise RuntimeError(f"{program[0]} did not start:\n{child.last_words()}")
                    await asyncio.sleep(0.02)
            yield Server(int(found[1]), child.pid)
            if not child.runs():
                raise RuntimeError(f"{program[0]} has ended:\n{child.last_words()}")
        finally:
            await child.stop()
