"""A Postgres of the faults' own, the ways to it that break, and the means to stop a program at a certain point."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, admin, at

from faults.by_hand import Client
from faults.servers import Pgbouncer, Postgres
from faults.tcp_proxy import TcpProxy
from notifier.postgres import database as connecting
from notifier.postgres import history, reconnecting, tail, writer
from notifier.postgres.database import Database
from notifier.postgres.migrations import migrate


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that the user of the servers can enter."""
    made = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def breakable(folder: Path) -> AsyncIterator[Postgres]:
    # What no commit has flushed, nobody else soon does: a crash takes it.
    server = Postgres(folder / "breakable", {"wal_writer_delay": "10s"})
    await server.create()
    await server.start()
    yield server
    await server.close()


@pytest_asyncio.fixture
async def server_of_ours(breakable: Postgres) -> AsyncIterator[Postgres]:
    """A server that a test may break; the next one finds it running."""
    await breakable.restore()
    yield breakable
    await breakable.restore()


@pytest_asyncio.fixture
async def url_of_ours(server_of_ours: Postgres) -> AsyncIterator[str]:
    """The URL of a migrated database on it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await admin(server_of_ours.url, f"create database {name}")
    url = at(server_of_ours.url, name)
    await migrate(url)
    yield url
    await server_of_ours.restore()
    await admin(server_of_ours.url, f"drop database {name} with (force)")


@pytest_asyncio.fixture
async def proxy(database: str) -> AsyncIterator[TcpProxy]:
    """A way to the test's database that can be broken."""
    async with TcpProxy(database) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def pooler(folder: Path, url_of_ours: str) -> AsyncIterator[Pgbouncer]:
    """A transaction pooler before `url_of_ours`."""
    pooler = Pgbouncer(folder, url_of_ours)
    await pooler.start()
    yield pooler
    await pooler.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that does not answer is given up soon, and asked again often."""
    for module in (tail, writer, history):
        monkeypatch.setattr(module, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(reconnecting, "LAST_PAUSE_S", 0.2)


async def eventually(read: Callable[[], Awaitable[Any]], condition: Callable[[Any], object] = bool) -> Any:
    """What `read` returns once `condition` holds of it. It fails only when that never happens."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition(value := await read()):
            await asyncio.sleep(0.005)
    return value


class Halt:
    """A point at which a program stops until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def reached(self) -> None:
        """Return when the program has come to this point."""
        async with asyncio.timeout(DEADLINE_S):
            await self._reached.wait()

    def before(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def halting(*args: object, **kwargs: object) -> object:
            await self.halt()
            return await function(*args, **kwargs)

        return halting

    def after(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def halting(*args: object, **kwargs: object) -> object:
            result = await function(*args, **kwargs)
            await self.halt()
            return result

        return halting

    async def halt(self) -> None:
        self._reached.set()
        await self.go_on.wait()


class Halting:
    """A database to which a connection is made only when the test says so."""

    def __init__(self, database: Database, halt: Halt) -> None:
        self._database = database
        self.connect = halt.before(database.connect)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class HaltingReads:
    """A database from which what is read arrives only when the test says so."""

    def __init__(self, database: Database, halt: Halt) -> None:
        self._database = database
        self._halt = halt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @asynccontextmanager
    async def calls(self, connection: asyncpg.Connection) -> AsyncIterator[Any]:
        async with self._database.calls(connection):
            yield connection
        await self._halt.halt()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[asyncpg.Connection]]:
    """The connections of each kind that services in this process have made."""
    made: dict[str, list[asyncpg.Connection]] = {}
    connect = Database.connect

    async def remembering(self: Database, name: str, **kwargs: Any) -> asyncpg.Connection:
        connection = await connect(self, name, **kwargs)
        made.setdefault(name, []).append(connection)
        return connection

    monkeypatch.setattr(Database, "connect", remembering)
    return made


@pytest_asyncio.fixture
async def tidy() -> AsyncIterator[None]:
    """Connections by hand are closed, whatever becomes of the test."""
    yield
    while Client.opened:
        Client.opened.pop().close()
