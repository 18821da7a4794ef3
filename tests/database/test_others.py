"""A process that is alone notifies nobody; one that is not tells the others at once."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest
from conftest import DEADLINE_S, Running, Start, data, until

from notifier.postgres import tail
from notifier.postgres.others import Others


@pytest.fixture(autouse=True)
def without_safety_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found but by a notification."""
    monkeypatch.setattr(tail, "POLL_S", 600.0)


async def alone(app: Running) -> None:
    """Return when it has found out that it is."""
    app.service.tail._check_soon()
    await until(lambda: app.service.tail.alone)


async def test_nobody_is_notified_where_nobody_else_follows_the_log(start: Start, sql: asyncpg.Connection) -> None:
    app = await start()
    heard = asyncio.Queue[str]()
    await sql.add_listener("notifier", lambda *notification: heard.put_nowait(notification[-1]))
    first = await app.publish("a")
    async with asyncio.timeout(DEADLINE_S):
        assert await heard.get() == first  # it does not know yet
        await alone(app)
        poll = app.start_poll("a", wait=20)
        await app.parked()
        await app.publish("a", "2")
        assert data(await poll) == [2]
        poll = app.start_poll("a", wait=20)
        await app.parked()
        await sql.execute("select notifier.publish('a', '3')")
        assert data(await poll) == [3]
        await sql.execute("select pg_notify('notifier', 'fence')")
        assert await heard.get() == "fence"


async def test_one_that_comes_is_told_at_once(start: Start, sql: asyncpg.Connection) -> None:
    app = await start()
    await alone(app)
    other = await start()
    await until(lambda: not app.service.tail.alone)
    app.service.tail._check_soon()
    poll = other.start_poll("a", wait=20)
    await other.parked()
    await app.publish("a", "1")
    assert data(await poll) == [1]
    poll = app.start_poll("a", wait=20)
    await app.parked()
    await other.publish("a", "2")
    assert data(await poll) == [2]
    assert not app.service.tail.alone


class Session:
    """The tail's connection, which sees no session but its own."""

    def __init__(self, others: Others, *, comes: bool = False, hidden: bool = False) -> None:
        self._others = others
        self._comes = comes
        self._hidden = hidden

    @asynccontextmanager
    async def calls(self, connection: "Session"):
        yield connection

    async def fetchval(self, *_: object) -> bool:
        if self._hidden:
            raise asyncpg.InsufficientPrivilegeError("permission denied for view pg_stat_activity")
        if self._comes:
            self._others.come()
        return True


@pytest.mark.parametrize(("happens", "none"), [({}, True), ({"comes": True}, False), ({"hidden": True}, False)])
async def test_it_is_alone_only_where_it_knows(happens: dict[str, bool], none: bool) -> None:
    others = Others()
    session = Session(others, **happens)
    await others.look(session, session, "tail")
    assert others.none is none
