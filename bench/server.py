"""Programs under test, each a process of its own that cannot outlive the run, not even a killed one."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from notifier.embedded.account import Account
from notifier.embedded.child import Child

ROOT = Path(__file__).resolve().parent.parent
START_S = 30.0

# What `python` runs. The last two answer without a server behind them.
NOTIFIER = "-m", "notifier", "serve"  # as shipped
ONE_BY_ONE = "import sys; from notifier import cli; from notifier.postgres import writer; writer.MAX_BATCH = 1"
BATCHES_OF_ONE = "-c", f"{ONE_BY_ONE}; sys.exit(cli.main(['serve']))"  # group commit is off
ANSWERING = "-m", "bench.nothing", "Answering"
PARKING = "-m", "bench.nothing", "Parking"

_SERVES = re.compile(r"serves on http://127\.0\.0\.1:([0-9]+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A program that serves on `port` of the loopback, in the process `pid`."""

    port: int
    pid: int


@asynccontextmanager
async def running(
    program: Sequence[str], database: str = "", root: Path = ROOT, **environment: str
) -> AsyncIterator[Server]:
    """Run `python *program` with the source at `root`, and wait until it says where it serves."""
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as folder:
        log = Path(folder, "log")
        me = Account("", os.geteuid(), os.getegid())
        environment |= {"PYTHONPATH": str(root), "PORT": "0", "DATABASE_URL": database}
        child = Child([sys.executable, *program], me, log, environment)
        try:
            async with asyncio.timeout(START_S):
                while not (found := _SERVES.search(log.read_text())):
                    if not child.runs():
                        raise RuntimeError(f"{program} did not start:\n{child.last_words()}")
                    await asyncio.sleep(0.02)
            yield Server(int(found[1]), child.pid)
            if not child.runs():
                raise RuntimeError(f"{program} has ended:\n{child.last_words()}")
        finally:
            await child.stop()


async def migrate(database: str, root: Path = ROOT) -> None:
    """Bring the database to the schema of the source at `root`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier", "migrate"),
        env=os.environ | {"PYTHONPATH": str(root), "DATABASE_URL": database},
        cwd=root,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"The database cannot be migrated:\n{said.decode(errors='replace')}")
