"""Passwords are rotated, roles locked and databases renamed while the service runs: it says so, and heals by itself."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from conftest import Start, admin, until
from support.servers import Postgres

from notifier.postgres.migrations import MigrationError, migrate


@pytest_asyncio.fixture
async def name(server_of_ours: Postgres) -> AsyncIterator[str]:
    """The name of a role, which is its password too, and of the migrated database that it owns."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    await admin(
        server_of_ours.url, f"create role {name} login password '{name}'", f"create database {name} owner {name}"
    )
    await migrate(url(server_of_ours, name))
    yield name
    await admin(server_of_ours.url, f"drop database {name} with (force)", f"drop role {name}")


REFUSES = "The database refuses the connection: "


def url(server: Postgres, name: str) -> str:
    return f"postgres://{name}:{name}@{server.url.rpartition('@')[2].partition('/')[0]}/{name}"


@pytest.mark.parametrize(
    ("change", "undo", "said"),
    [
        (["alter role {name} password 'other'"], ["alter role {name} password '{name}'"], REFUSES),
        (["alter role {name} nologin"], ["alter role {name} login"], REFUSES),
        (
            ["revoke connect on database {name} from public", "revoke connect on database {name} from {name}"],
            ["grant connect on database {name} to {name}"],
            REFUSES,
        ),
        (
            ["{end}", "alter database {name} rename to {name}_old"],
            ["alter database {name}_old rename to {name}"],
            REFUSES,
        ),
        (
            ["alter role {name} connection limit 0"],
            ["alter role {name} connection limit -1"],
            "The database is busy: ",
        ),
    ],
    ids=["password", "nologin", "no right to connect", "renamed", "no connection left"],
)
async def test_a_database_that_refuses_every_login_is_away_and_comes_back(
    server_of_ours: Postgres,
    name: str,
    start: Start,
    impatient: None,
    caplog: pytest.LogCaptureFixture,
    change: list[str],
    undo: list[str],
    said: str,
) -> None:
    app = await start(url(server_of_ours, name))
    published = await app.publish("orders")
    end = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    await admin(server_of_ours.url, *(each.format(name=name, end=end) for each in change), end)
    await until(lambda: not app.service.tail.up and not app.service.writer.up)

    async def status(method: str, path: str) -> int:
        async with app.client.request(method, path, data=b"1" if method == "POST" else None) as response:
            assert response.status != 503 or response.headers["Retry-After"]
            return response.status

    asked = [
        status("POST", "/v1/topics/orders"),
        status("POST", "/hooks/github"),
        status("GET", "/v1/topics/orders?after=earliest&wait=0"),
        status("GET", f"/v1/messages/{published}"),
    ]
    assert await asyncio.gather(*asked) == [503] * len(asked)
    # Clients are told which it is, and nothing of roles.
    told = said.removesuffix(": ").replace("the connection", "the service")
    await until(lambda: app.service.writer.state == told)
    async with app.client.post("/v1/topics/orders", data=b"1") as response:
        assert (await response.json())["detail"] == f"{told}; nothing was stored. Try again."
    await admin(server_of_ours.url, *(each.format(name=name) for each in undo))
    await until(lambda: app.service.not_ready() is None)
    await app.publish("orders")
    assert len((await app.poll("orders", after="earliest"))["messages"]) == 2
    assert not [record for record in caplog.records if record.exc_info]
    assert {said in record.message for record in caplog.records if "history: " in record.message} == {True}


async def test_a_revoked_right_makes_the_service_unavailable_until_it_is_granted_again(
    server_of_ours: Postgres, name: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    app = await start(url(server_of_ours, name))
    published = await app.publish("orders")
    owner = url(server_of_ours, name)
    await admin(owner, f"revoke all on all tables in schema notifier from {name}")

    async def status(method: str, path: str) -> int:
        async with app.client.request(method, path, data=b"1" if method == "POST" else None) as response:
            return response.status

    assert await status("GET", f"/v1/messages/{published}") == 503
    assert await status("GET", "/v1/topics/orders?after=earliest&wait=0") == 503
    assert await status("POST", "/v1/topics/orders") == 503
    await admin(owner, f"grant all on all tables in schema notifier to {name}")
    await until(lambda: app.service.not_ready() is None)
    await app.publish("orders")
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_process_that_may_not_publish_is_not_ready_and_still_serves_what_there_is(
    server_of_ours: Postgres, name: str, start: Start, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    app = await start(url(server_of_ours, name))
    published = await app.publish("orders")
    owner = url(server_of_ours, name)

    async def status(method: str, path: str) -> int:
        async with app.client.request(method, path, data=b"1" if method == "POST" else None) as response:
            return response.status

    await admin(owner, f"revoke execute on all routines in schema notifier from {name}")
    await admin(
        owner, f"grant execute on all functions in schema notifier to {name}"
    )  # as people do, who forget procedures
    assert await status("POST", "/v1/topics/orders") == 503
    lacks = f"The role {name} lacks rights in the schema notifier: execute on notifier.append_and_flush("
    # It has connected again, and must not become ready until somebody publishes.
    await until(lambda: lacks in caplog.text)
    assert await status("GET", "/readyz") == 503
    assert await status("GET", f"/v1/messages/{published}") == 200
    assert await status("GET", "/v1/topics/orders?after=earliest&wait=0") == 200
    assert caplog.text.count(lacks) == 1
    await admin(owner, f"grant execute on all routines in schema notifier to {name}")
    await until(lambda: app.service.not_ready() is None)
    await app.publish("orders")
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("of", ["role {name}", "database {name}"])
async def test_a_default_of_only_reading_is_respected_and_told(
    server_of_ours: Postgres, name: str, start: Start, impatient: None, caplog: pytest.LogCaptureFixture, of: str
) -> None:
    """Providers set it when a disk is full."""
    app = await start(url(server_of_ours, name))
    published = await app.publish("orders")
    alter = f"alter {of.format(name=name)}"
    end = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    await admin(server_of_ours.url, f"{alter} set default_transaction_read_only = on", end)
    told = f"default_transaction_read_only is on for the {of.partition(' ')[0]}: the role {name} must be able to write"
    await until(lambda: told in caplog.text)
    assert app.service.not_ready()
    async with app.client.get(f"/v1/messages/{published}") as response:
        assert response.status == 200
    with pytest.raises(MigrationError, match=told):
        await start(url(server_of_ours, name))
    await admin(server_of_ours.url, f"{alter} reset default_transaction_read_only", end)
    await until(lambda: app.service.not_ready() is None)
    await app.publish("orders")
    assert not [record for record in caplog.records if record.exc_info]
