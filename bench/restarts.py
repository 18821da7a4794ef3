"""`python -m bench.restarts`: what publishers and webhook senders that try once notice of restarts.

They send 100 requests a second, most on a connection of their own, some on connections that stay open, while the
service is restarted ten times: workers replaced by SIGHUP; one process whose socket the platform keeps (LISTEN_FDS);
one process without, where connections are refused from its end until the next one listens. Subscribers follow
meanwhile, and have to get each message that was acknowledged, once.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import psutil

from bench.database import NATIVE, database, execute, postgres
from bench.peers.serving import free_port
from bench.server import run
from notifier.client import Client

RATE = 100
FOLLOWERS = 3
SOURCE = "insert into notifier.source (name, scheme, topic, secrets) values ('ci', 'none', 'numbers', '{}')"
# Bounds a hang.
WAIT_S = 60.0
# Between two restarts, and before the first: so that each meets senders in full swing.
BETWEEN_S = 0.5


# As systemd does: the socket is file 3 of the program.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Senders:
    """Each sends one number, and tries once."""

    url: str
    stored: list[int] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)  # when it was sent, and what came of it

    async def run(self) -> None:
        """Send until cancelled; then return when all have their answers."""
        timeout = aiohttp.ClientTimeout(total=WAIT_S)
        async with (
            # Room for what a loaded machine takes long to answer: what waits for a connection here would give up after
            # WAIT_S without having been sent. Together they fit into the usual limit of 1024 open files.
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=600), timeout=timeout
            ) as fresh,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200), timeout=timeout) as kept,
            asyncio.TaskGroup() as group,
        ):
            ways = itertools.cycle(
                [
                    (fresh, "/v1/topics/numbers"),
                    (fresh, "/hooks/ci"),
                    (fresh, "/v1/topics/numbers"),
                    (kept, "/hooks/ci"),
                ]
            )
            begun = time.monotonic()
            with contextlib.suppress(asyncio.CancelledError):
                for number, (session, path) in enumerate(ways):
                    await asyncio.sleep(begun + number / RATE - time.monotonic())
                    group.create_task(self._send(session, path, number))

    async def _send(self, session: aiohttp.ClientSession, path: str, number: int) -> None:
        sent = time.monotonic()
        try:
            async with session.post(self.url + path, json=number) as response:
                if response.status not in {200, 201}:
                    self.failures.append((sent, f"{path}: {response.status} {await response.text()}"))
                else:
                    self.stored.append(number)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append((sent, f"{path}: {type(error).__name__}: {error}"))


class Follower:
    """Gets all numbers."""

    def __init__(self, url: str) -> None:
        self.got: list[int] = []
        self.gaps: list[object] = []
        self._task = asyncio.create_task(self._run(url))

    async def _run(self, url: str) -> None:
        async with Client(url) as client:
            async for message in client.subscribe(
                "numbers", after="earliest", on_gap=self.gaps.append, on_retry=lambda *_: None
            ):
                self.got.append(message.data)

    async def end(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class Process:
    """`notifier serve`, which its supervisor starts anew as soon as it has ended. With `handed_over`, the supervisor
    has the socket."""

    workers = 1

    def __init__(
        self, url: str, port: int, log: Path, *, handed_over: bool = False, how: signal.Signals = signal.SIGTERM
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        self._environ = kept | {"DATABASE_URL": url, "PORT": str(port), "WEB_CONCURRENCY": str(self.workers)}
        self._how = how
        self._log = log
        self._socket = socket.create_server(("127.0.0.1", port), backlog=4096) if handed_over else None
        self._process: subprocess.Popen[bytes] | None = None
        self._greetings = 0

    def said(self) -> str:
        return self._log.read_text()

    async def start(self) -> None:
        serve: Sequence[str] = (sys.executable, "-m", "notifier", "serve")
        given: tuple[int, ...] = ()
        if self._socket:
            given = (self._socket.fileno(),)
            serve = (sys.executable, "-c", HAND_OVER, str(given[0]), *serve)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                serve, env=self._environ, stdout=log, stderr=subprocess.STDOUT, pass_fds=given
            )
        self._greetings += 1
        await until(lambda: self.said().count("notifier serves on") == self._greetings, self.said)

    async def restart(self) -> None:
        await self._end(self._how)
        await self.start()

    async def close(self) -> None:
        await self._end(signal.SIGINT)
        if self._socket:
            self._socket.close()

    async def _end(self, how: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(how)
            await asyncio.to_thread(self._process.wait, WAIT_S)
            self._process = None


class Reloadable(Process):
    """Two workers, which SIGHUP replaces."""

    workers = 2

    async def restart(self) -> None:
        assert self._process
        before = {child.pid for child in psutil.Process(self._process.pid).children()}
        self._process.send_signal(signal.SIGHUP)

        def replaced() -> bool:
            now = {child.pid for child in psutil.Process(self._process.pid).children()} if self._process else set()
            return len(now) == self.workers and not now & before

        await until(replaced, self.said)


async def until(condition: Callable[[], bool], said: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise TimeoutError(said()[-2000:]) from None


@contextlib.asynccontextmanager
async def sending(server: Process, url: str) -> AsyncIterator[Senders]:
    """Senders and followers at work. When all is sent, every follower has each number that was stored, once."""
    await server.start()
    senders = Senders(url)
    followers = [Follower(url) for _ in range(FOLLOWERS)]
    task = asyncio.create_task(senders.run())
    try:
        await asyncio.sleep(BETWEEN_S)
        yield senders
        task.cancel()
        await task
        stored = set(senders.stored)
        for follower in followers:
            await until(partial(stored.issubset, follower.got), lambda: "a follower lacks messages")
            if (
                follower.gaps
                or len(follower.got) != len(set(follower.got))
                or follower.got != followers[0].got[: len(follower.got)]
            ):
                raise RuntimeError("a follower was told a gap, or got something twice or in another order")
    finally:
        task.cancel()
        for follower in followers:
            await follower.end()
        await server.close()


ALONE = "one process"
KINDS: dict[str, Callable[[str, int, Path], Process]] = {
    "workers, SIGHUP": Reloadable,
    "one process, LISTEN_FDS": partial(Process, handed_over=True),
    ALONE: Process,
}
# What one process without a socket of the platform's may take.
REFUSED_S = 0.5


async def measure(kind: str, restarts: int, url: str, folder: Path) -> bool:
    """Whether none was refused; with one process alone, whether none was for longer than REFUSED_S."""
    port = free_port()
    server = KINDS[kind](url, port, folder / f"{kind}.log")
    spans = []
    async with sending(server, f"http://127.0.0.1:{port}") as senders:
        for _ in range(restarts):
            before = len(senders.failures)
            await server.restart()
            await asyncio.sleep(BETWEEN_S)
            times = [sent for sent, _ in senders.failures[before:]]
            spans.append(max(times) - min(times) + 1 / RATE if times else 0.0)
    failed = senders.failures
    print(f"{kind}: {restarts} restarts, {len(senders.stored)} stored, {len(failed)} refused", flush=True)
    if failed:
        print(f"  for at most {1000 * max(spans):.0f} ms in one restart", flush=True)
        for what, count in Counter(what for _, what in failed).most_common(5):
            print(f"  {count} times {what[:200]}", flush=True)
    return max(spans) < REFUSED_S if kind == ALONE else not failed


async def measure_all(restarts: int, kinds: Sequence[str], folder: Path) -> bool:
    valid = True
    async with postgres() as server:
        for kind in kinds:
            async with database(server, NATIVE) as url:
                await execute(url, SOURCE)
                valid = await measure(kind, restarts, url, folder) and valid
    return valid


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.restarts", description=__doc__)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--kind", action="append", choices=KINDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="notifier-restarts-") as folder:
        try:
            return 0 if run(measure_all(arguments.restarts, arguments.kind or list(KINDS), Path(folder))) else 1
        except asyncio.CancelledError:
            return 130
        except (RuntimeError, TimeoutError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
