"""No role can stop the service by a lock, and no server that is frozen stops the others."""

import asyncio
import uuid

import asyncpg
import pytest
from conftest import DEADLINE_S, Running, Start, admin, at, data
from support.roles import as_role, name_of

from notifier.postgres import pump, sessions, writer
from notifier.postgres.database import Database
from notifier.postgres.failures import AWAY

# Advisory locks of these keys once were ours.
ADVISORY = "select pg_advisory_lock(1852798057, key) from generate_series(1, 5) key"
OURS = (
    *("order_lock", "pump_lock", "wake_lock", "wake_lock_2", "retention", "migration"),
    *("outbox", "change", "message", "topic"),
)


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox is pumped when a publisher has notified, and never by the way."""
    monkeypatch.setattr(pump, "SCAN_S", 600.0)


@pytest.mark.usefixtures("notified")
@pytest.mark.rule("Q-6")
async def test_a_role_that_may_only_publish_cannot_stop_others(start: Start, postgres: str, database: str) -> None:
    app = await start()
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    await admin(postgres, f"create role {role} login password 'secret'")
    await admin(
        database,
        f"grant usage on schema notifier to {role}",
        f"grant insert (topic, data) on notifier.outbox to {role}",
    )
    try:
        stranger = await asyncpg.connect(as_role(postgres, role, name_of(database)))
        await stranger.execute(ADVISORY)
        for table in OURS:
            for mode in ("access share", "row exclusive", "share update exclusive", "access exclusive"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with stranger.transaction():
                        await stranger.execute(f"lock table notifier.{table} in {mode} mode")
        async with asyncio.timeout(DEADLINE_S):
            await app.publish("orders", "1")
            cursor = (await app.poll("orders", after="earliest"))["cursor"]
            await admin(database, "select notifier.publish('orders', '2')")
            assert data(await app.poll("orders", after=cursor, wait=20)) == [2]
            await admin(database, "select notifier.begin_epoch(0)")
            connection = await asyncpg.connect(database)
            assert await connection.fetchval("select notifier.prune(now() + interval '1 day', 1000)") == 2
            await connection.close()
        await stranger.close()
    finally:
        await admin(at(postgres, name_of(database)), f"drop owned by {role} cascade", f"drop role {role}")


@pytest.mark.usefixtures("notified")
@pytest.mark.rule("Q-4")
async def test_a_publisher_that_checks_its_constraints_early_mutes_no_other(
    app: Running, database: str, sql: asyncpg.Connection
) -> None:
    """Its transaction notifies at its end only, however long that takes."""
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    async with sql.transaction():
        await sql.execute("set constraints all immediate")
        await sql.execute("select notifier.publish('held', '1')")
        await admin(database, "select notifier.publish('orders', '2')")
        assert data(await poll) == [2]


async def test_a_server_frozen_before_its_commit_does_not_stop_the_others(
    start: Start, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler a batch is appended and committed in two round trips."""
    app = await start()
    assert sessions.IDLE_IN_TRANSACTION_S < writer.TIMEOUT_S  # the others succeed at their first attempt
    monkeypatch.setattr(sessions, "IDLE_IN_TRANSACTION_S", 0.5)
    frozen = Database(database, pooled=True)
    connection = await frozen.connect("frozen", command_timeout_s=5)
    transaction = frozen.calls(connection)
    await transaction.__aenter__()
    await connection.fetch("select * from notifier.append(array['orders'], array[$1::bytea], $2, $2, $2)", b"1", [None])
    await app.publish("orders", "2")
    with pytest.raises(AWAY):
        await transaction.__aexit__(None, None, None)
    connection.terminate()
    assert data(await app.poll("orders", after="earliest")) == [2]
