"""A service that starts while the database goes away, freezes or restarts waits for it, and begins again."""

import asyncio
from typing import Any

import pytest
from conftest import Start, until
from support.halting import Halt
from support.servers import Postgres
from support.tcp_proxy import TcpProxy

from notifier import service
from notifier.postgres.database import Database


@pytest.mark.parametrize("listen", [False, True], ids=["one URL", "two URLs"])
async def test_a_connection_that_breaks_between_two_steps_of_the_start_has_all_of_them_tried_again(
    start: Start, database: str, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, listen: bool
) -> None:
    halt = Halt()
    monkeypatch.setattr(service, "check_schema", halt.before(service.check_schema))
    starting = asyncio.create_task(start(proxy.url, listen_url=database if listen else None))
    await halt.reached()
    await proxy.cut()
    halt.go_on.set()
    app = await starting
    await app.publish("orders")


async def test_a_frozen_database_is_waited_for(
    start: Start, server_of_ours: Postgres, url_of_ours: str, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    probe = Database.probe

    async def counted(url: str) -> Any:
        nonlocal tries
        tries += 1
        return await probe(url)

    monkeypatch.setattr(Database, "probe", counted)
    server_of_ours.freeze()
    starting = asyncio.create_task(start(url_of_ours))
    await until(lambda: tries == 2)
    server_of_ours.thaw()
    app = await starting
    await app.publish("orders")
