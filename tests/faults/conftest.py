"""A Postgres of the faults' own, and the ways to it that break."""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from conftest import admin, at
from support.by_hand import Client
from support.servers import Pgbouncer, Postgres
from support.tcp_proxy import TcpProxy

from notifier.postgres import connecting, history, pump, reconnecting, tail, writer
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
    # What no commit has flushed, no background process flushes soon: a crash takes it.
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
    for module in (tail, writer, pump, history):
        monkeypatch.setattr(module, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(reconnecting, "LAST_PAUSE_S", 0.2)


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
