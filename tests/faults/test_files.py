"""Clients that take all the files they can get keep the service from nothing but more clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from aiohttp import ClientSession
from conftest import Running, Server
from support.halting import eventually
from support.log import end_connections
from support.protocol import line

from notifier.core.messages import NewMessage
from notifier.web import memory

FILES = 300


@asynccontextmanager
async def hoarding(server: Server) -> AsyncIterator[None]:
    """As many connections as the server has files, on which nothing is sent. What it closes is opened anew."""
    opened = 0

    async def hold() -> None:
        nonlocal opened
        while True:
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                opened += 1
                try:
                    await reader.read()
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hold()) for _ in range(FILES)]

        async def how_many() -> int:
            return opened

        await eventually(how_many, lambda found: found > FILES)  # some were closed, and are back
        yield
        for task in tasks:
            task.cancel()


async def test_a_server_whose_clients_hold_all_files_finds_back_to_its_database(
    server: Server, sql: asyncpg.Connection
) -> None:
    server.stop()
    server.start(files=FILES)

    async with ClientSession(server.url) as known:

        async def status() -> int:
            async with known.get("/readyz") as response:
                return response.status

        await status()
        async with hoarding(server):
            await end_connections(sql, "tail", "writer", "pump")
            await eventually(status, lambda found: found == 503)
            await eventually(status, lambda found: found == 200)
    assert server.log.read_text().count("new clients are turned away") == 1


@pytest.mark.both_paths
async def test_a_client_that_would_take_one_of_the_last_files_is_turned_away(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line(app) as parked:
        await parked.send("GET /v1/topics/orders?wait=28 HTTP/1.1")
        await app.parked()
        with monkeypatch.context() as patch:
            patch.setattr(memory.resource, "getrlimit", lambda _: (4, 4))
            async with line(app) as turned_away:
                with suppress(ConnectionError):
                    await turned_away.send("GET /healthz HTTP/1.1")
                    assert await turned_away.reader.read() == b""
            [seq] = await app.service.publish([NewMessage("orders", b"1")])
            assert f'"id": "{seq}"'.encode() in (await parked.answer()).body
        async with line(app) as later:
            await later.send("GET /healthz HTTP/1.1")
            assert (await later.answer()).status == 200
