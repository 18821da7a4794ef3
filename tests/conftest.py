"""What tests build on: a Postgres for the run, a database for each test, the service in and out of process.

The Postgres is that of the wheel; with TEST_POSTGRES=system, the one that the system has installed.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
import uvloop
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from notifier.embedded import binaries, embedded_postgres
from notifier.postgres.migrations import migrate
from notifier.service import Service, running
from notifier.settings import Settings
from notifier.web.app import create_app, create_runner
from notifier.web.handover import HANDOVER

# These machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("notifier", deadline=None)
hypothesis.settings.load_profile("notifier")

ROOT = Path(__file__).resolve().parent.parent

# Bounds a hang; nothing is measured with it.
DEADLINE_S = 20.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[str]:
    """The URL of a server on which databases can be created."""
    if os.environ.get("TEST_POSTGRES") == "system":
        binaries._wheel = lambda: None
    settings = {"fsync": "off", "max_connections": "200", "max_prepared_transactions": "5", "max_wal_size": "128MB"}
    # Not below pytest's folder: as root the server runs as another user, which cannot enter that.
    with tempfile.TemporaryDirectory(prefix="notifier-test-", dir=memory()) as folder:
        Path(folder).chmod(0o711)
        async with embedded_postgres(Path(folder), settings=settings) as url:
            yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(postgres: str) -> AsyncIterator[str]:
    """The name of a migrated database to clone."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    await admin(postgres, f"create database {name}")
    await migrate(at(postgres, name))
    yield name
    await admin(postgres, f"drop database {name}")


@pytest_asyncio.fixture
async def empty_database(postgres: str) -> AsyncIterator[str]:
    """The URL of a database without our schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await admin(postgres, f"create database {name}")
    yield at(postgres, name)
    await admin(postgres, f"drop database {name} with (force)")


@pytest_asyncio.fixture
async def database(postgres: str, template: str) -> AsyncIterator[str]:
    """The URL of a migrated database that only this test uses."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await admin(postgres, f"create database {name} template {template} strategy file_copy")
    # A copy of a database would begin a new epoch.
    here = "select d.oid from pg_database d where d.datname = current_database()"
    await admin(at(postgres, name), f"update notifier.epoch set database = ({here})")
    yield at(postgres, name)
    await admin(postgres, f"drop database {name} with (force)")


@pytest_asyncio.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database, as a publisher in SQL has one."""
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


class Running:
    """A service in this process, and a client of its HTTP face."""

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service = service
        self.client = client

    async def publish(self, topic: str, data: str = "1", **kwargs: object) -> str:
        """Publish JSON text; the id."""
        async with self.client.post(
            f"/v1/topics/{topic}", data=data, headers={"Content-Type": "application/json"}, **kwargs
        ) as response:
            assert response.status == 201, await response.text()
            return (await response.json())["id"]

    async def poll(self, topics: str, **params: object) -> dict:
        async with self.client.get(f"/v1/topics/{topics}", params=params) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    def start_poll(self, topics: str, **params: object) -> "asyncio.Task[dict]":
        return asyncio.create_task(self.poll(topics, **params))

    async def parked(self, count: int = 1) -> None:
        """Return when exactly `count` polls are parked."""
        await until(lambda: len(self.service.lot) == count)


Start = Callable[..., Awaitable[Running]]


def pytest_configure() -> None:
    """The event loop is the one that `serve` runs on; with TEST_LOOP=asyncio, the one where there is no uvloop."""
    if os.environ.get("TEST_LOOP") != "asyncio":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # policies, from Python 3.14 on
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As shells start what runs in the background; programs that tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_paths") and "fast" in metafunc.fixturenames:
        metafunc.parametrize("fast", [True, False], ids=["fast path", "plain path"])


@pytest.fixture
def fast() -> bool:
    """Whether connections of parked polls are handed over. Tests marked `both_paths` run with and without."""
    return True


@pytest_asyncio.fixture
async def start(database: str, fast: bool) -> AsyncIterator[Start]:
    """Start any number of services on the test's database: `await start(max_parked=1)`."""
    async with AsyncExitStack() as stack:
        services: list[Running] = []

        async def start(
            url: str = database, listen_url: str | None = None, fast: bool = fast, **settings: object
        ) -> Running:
            settings.setdefault("failed_rate", None)  # all tests have one address, and many are refused often
            made = await stack.enter_async_context(
                served(Settings(database_url=url, listen_database_url=listen_url, **settings), fast=fast)
            )
            services.append(made)
            return made

        yield start
        # No poll may stay behind: one leaked waiter for each client that hung up is how such servers die.
        for made in services:
            await made.client.close()
            await made.parked(0)
            await until(lambda made=made: not held(made))
            assert not made.service.lot._deadlines
            assert not made.service.lot._addresses
            assert not made.service.lot._hub._groups
            assert not made.service.lot._hub._exact
            assert not made.service.lot._hub._patterns


@asynccontextmanager
async def served(settings: Settings, *, fast: bool = True) -> AsyncIterator[Running]:
    assert settings.database_url
    async with (
        running(settings, settings.database_url) as service,
        TestClient(RealServer(create_app(service), fast=fast)) as client,
    ):
        yield Running(service, client)


class RealServer(TestServer):
    """aiohttp's test server has settings of its own; this one has those of `serve`."""

    def __init__(self, app: web.Application, *, fast: bool) -> None:
        super().__init__(app)
        self._fast = fast

    async def _make_runner(self, **_: object) -> web.AppRunner:
        return create_runner(self.app, fast=self._fast)


@pytest_asyncio.fixture
async def app(start: Start) -> Running:
    """One service with the default settings."""
    return await start()


class Server:
    """A real `notifier serve` process."""

    def __init__(self, database: str, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFIER_", "DATABASE_"))}
        self.env = keep | {
            "DATABASE_URL": database,
            "PORT": str(self.port),
            "NOTIFIER_URL": self.url,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, files: int | None = None) -> None:
        """`files`: how many it may open."""
        command = [sys.executable, "-m", "notifier", "serve"]
        if files:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code once the process has ended."""
        assert self.process
        self.process.send_signal(how)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        self.stop(signal.SIGINT)
        self.start()

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(database: str, tmp_path: Path) -> Iterator[Server]:
    """A real `notifier serve` on the test's database, in open mode."""
    server = Server(database, tmp_path / "serve.log")
    server.start()
    yield server
    server.close()


# --- helpers that tests import


def memory() -> Path | None:
    """A folder in memory, where there is much room. A database is 300 files: to make one takes 8 ms of CPU there, and
    120 on a disk that has been in use for some hours."""
    folder = Path("/dev/shm")
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 4 * 2**30
    return folder if has_room else None


def at(url: str, database: str) -> str:
    """`url` with another database."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


async def admin(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def until(condition: Callable[[], bool], what: str = "condition") -> None:
    """Return when `condition()` holds. It fails only when that never happens."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def deadline() -> float:
    """A time of the event loop that only a hang exceeds."""
    return asyncio.get_running_loop().time() + DEADLINE_S


def held(app: Running) -> int:
    """What clients make the service keep; the shapes of re-polls, the tokens that were verified and what the
    policy said, which outlive connections, are not counted."""
    handover = app.client.app.get(HANDOVER)
    tokens = app.service.callers.tokens
    policy = app.service.policy
    kept = (handover.shapes.lately.size if handover else 0) + (policy.size if policy else 0)
    return app.service.memory.held - kept - (0 if tokens is None else tokens.held)


def free_port() -> int:
    """A port below those that the kernel hands out: another test's server could get one of them before it is used, and
    would answer in the place of ours."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def ids(answer: dict) -> list[str]:
    return [message["id"] for message in answer["messages"]]


def data(answer: dict) -> list[object]:
    return [message["data"] for message in answer["messages"]]


def run(*command: str, env: dict[str, str] | None = None, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=DEADLINE_S, check=False, **kwargs)


__all__: Sequence[str] = [
    "ROOT",
    "Running",
    "Server",
    "Start",
    "admin",
    "at",
    "data",
    "deadline",
    "ids",
    "run",
    "until",
]
