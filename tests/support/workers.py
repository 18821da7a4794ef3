"""A real `notifier serve` with several processes."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import psutil
from conftest import DEADLINE_S, Server, until

from support.by_hand import Client

SERVE = ("-m", "notifier", "serve")

# The longest that a stop may take.
STOP_S = 12


class Workers(Server):
    """A real `notifier serve` with several processes. It keeps its data, if any, beside its log."""

    def __init__(self, database: str | None, folder: Path, count: int) -> None:
        super().__init__(database or "", folder / "serve.log")
        self.env["WEB_CONCURRENCY"] = str(count)
        self.count = count

    async def start(self, how: tuple[str, ...] = SERVE, patience_s: float = DEADLINE_S) -> None:
        """Return when all its workers serve."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *how], env=self.env, stdout=log, stderr=subprocess.STDOUT, cwd=self.log.parent
            )
        async with asyncio.timeout(patience_s):
            while "notifier serves on" not in self.said() and self.process.poll() is None:
                await asyncio.sleep(0.005)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        assert self.process
        return psutil.Process(self.process.pid).children(recursive=True)

    def pids(self) -> list[int]:
        """The process ids of the workers: the keeper of an embedded database has children."""
        assert self.process
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if not child.children():
                    found.append(child.pid)
        return found

    def files(self) -> dict[int, int]:
        """How many open files each worker has. A connection is one."""
        found = {}
        for pid in self.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[pid] = psutil.Process(pid).num_fds()
        return found

    async def client_of(self, pid: int) -> Client:
        """A connection to this worker, on which it has answered."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                before = self.files()
                client = await Client.connect(self)
                client.send("GET", "/healthz")
                await client.answer()
                after = self.files()
                if [each for each in after if after[each] > before.get(each, 0)] == [pid]:
                    return client  # the others stay open: what is closed now would confuse the next look

    async def parked(self, pid: int) -> Client:
        """A client that is parked on this worker, on `orders`."""
        client = await self.client_of(pid)
        client.send("GET", "/v1/topics/orders?wait=20")
        await self.has_read(pid)
        return client

    async def has_read(self, pid: int) -> None:
        """Return when this worker has read what was sent to it before."""
        client = await self.client_of(pid)
        for _ in range(3):  # in one turn of its loop it reads in no certain order
            client.send("GET", "/healthz")
            await client.answer()

    async def replaced(self, pid: int) -> None:
        """Return when another worker has come in place of this one, and all answer."""
        await until(lambda: pid not in self.pids() and len(self.pids()) == self.count)
        for each in self.pids():
            await self.client_of(each)

    async def ended(self) -> int:
        """The exit code."""
        assert self.process
        return await asyncio.to_thread(self.process.wait, STOP_S)


async def put_away(server: Workers) -> None:
    while Client.opened:
        Client.opened.pop().close()
    if server.process and server.process.poll() is None:
        family = server.family()
        processes = psutil.Process(server.process.pid).children()
        server.close()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await gone(family)


async def gone(family: list[psutil.Process]) -> None:
    assert not (await asyncio.to_thread(psutil.wait_procs, family, DEADLINE_S))[1]
