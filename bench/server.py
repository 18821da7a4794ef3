"""Notifier as a process, and what answers without a server behind it."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from bench.peers import Served
from bench.peers.once import said
from bench.peers.serving import free_port, started

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent

# What `python` runs.
NOTIFIER = "-m", "notifier", "serve"  # as shipped
ONE_BY_ONE = "import sys; from notifier import cli; from notifier.postgres import writer; writer.MAX_BATCH = 1"
BATCHES_OF_ONE = "-c", f"{ONE_BY_ONE}; sys.exit(cli.main(['serve']))"  # group commit is off
ANSWERING = "-m", "bench.nothing", "Answering"
PARKING = "-m", "bench.nothing", "Parking"


@asynccontextmanager
async def running(
    program: Sequence[str], database: str = "", root: Path = ROOT, **environment: str
) -> AsyncIterator[Served]:
    """Run `python *program` with the source at `root` until it is left; begin when it is ready."""
    environment |= {"PYTHONPATH": str(root), "DATABASE_URL": database}
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as folder:
        command = [sys.executable, *program]
        async with started(command, port, Path(folder), "/readyz", environment) as served:
            yield served


def migrate(database: str, root: Path = ROOT) -> None:
    """Bring the database to the schema of the source at `root`."""
    said([sys.executable, "-m", "notifier", "migrate"], root, {"PYTHONPATH": str(root), "DATABASE_URL": database})


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run. CancelledError on Ctrl-C and SIGTERM, when everything that we have started has been ended."""

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await main

    return asyncio.run(interruptible())
