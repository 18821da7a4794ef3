"""What the window gets from below: all that it has room for, and nothing that may not be there."""

import asyncio
from unittest.mock import AsyncMock

import asyncpg
import pytest
from conftest import Start, data, until

from notifier.core.errors import Unavailable
from notifier.postgres import older, tail


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that leaves most of a small log to be filled in, in several portions."""
    monkeypatch.setattr(tail, "FILL_ROWS", 3)
    monkeypatch.setattr(older, "ROWS", 4)
    monkeypatch.setattr(older, "RETRY_S", 0.0)


async def test_what_a_crowd_has_missed_is_in_memory_soon_after_a_start(start: Start) -> None:
    app = await start()
    published = [await app.publish(f"user/{n % 3}", str(n)) for n in range(20)]
    again = await start()
    await until(lambda: again.service.window.whole)
    again.service.history.read = AsyncMock(side_effect=AssertionError("the table was read"))
    assert data(await again.poll("user/0", after=published[0], wait=0)) == [3, 6, 9, 12, 15, 18]
    assert data(await again.poll("user/*", after=published[2], wait=0)) == list(range(3, 20))
    assert data(await again.poll("user/1", last=3, wait=0)) == [13, 16, 19]
    assert data(await again.poll("user/1", last=30, wait=0)) == [1, 4, 7, 10, 13, 16, 19]
    assert data(await again.poll("nobody", last=3, wait=0)) == []


async def test_it_is_filled_until_there_is_no_more_room(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(20)]
    monkeypatch.setattr(older.Window.__init__, "__defaults__", (9, 32 * 1024 * 1024, None))
    again = await start()
    await until(lambda: len(again.service.window) == 9)
    await until(again.service.filling.is_over)
    assert not again.service.window.whole
    assert data(await again.poll("a", after=published[2], wait=0)) == list(range(3, 20))
    assert data(await again.poll("a", last=15, wait=0)) == list(range(5, 20))


async def test_what_retention_has_taken_is_still_told(start: Start, sql: asyncpg.Connection) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(20)]
    await sql.execute("update notifier.message set time = time - interval '9 days' where seq <= $1", int(published[5]))
    await sql.execute("select notifier.prune(now() - interval '7 days', 1000)")
    again = await start()
    await until(again.service.filling.is_over)
    assert again.service.window.start >= int(published[5])
    found = await again.poll("a", after=published[2], wait=0)
    assert data(found) == list(range(6, 20))
    assert found["gap"]["reason"] == "retention"


async def test_a_database_that_is_away_is_asked_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await start()
    for n in range(20):
        await app.publish("a", str(n))
    read, failed = older.Filling._read, asyncio.Event()

    async def once(self: older.Filling, begin: int) -> list[asyncpg.Record]:
        if not failed.is_set():
            failed.set()
            raise Unavailable("away")
        return await read(self, begin)

    monkeypatch.setattr(older.Filling, "_read", once)
    again = await start()
    await until(lambda: again.service.window.whole)
    assert failed.is_set()


async def test_a_window_that_begins_anew_meanwhile_gets_nothing_of_before(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    for n in range(20):
        await app.publish("a", str(n))
    read, reading, go_on = older.Filling._read, asyncio.Event(), asyncio.Event()

    async def held(self: older.Filling, begin: int) -> list[asyncpg.Record]:
        rows = await read(self, begin)
        reading.set()
        await go_on.wait()
        return rows

    monkeypatch.setattr(older.Filling, "_read", held)
    again = await start()
    await reading.wait()
    window = again.service.window
    window.reset(window.head + 10)  # without telling
    go_on.set()
    await until(again.service.filling.is_over)
    assert len(window) == 0
    assert window.start == window.head


class Held:
    """Reads of what is older, each of which waits until it may go on; `fails` instead of going on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reading = asyncio.Event()
        self.go_on = asyncio.Event()
        self.fails = False
        read = older.Filling._read

        async def held(filling: older.Filling, begin: int) -> list[asyncpg.Record]:
            self.reading.set()
            await self.go_on.wait()
            if self.fails:
                raise Unavailable("away")
            return await read(filling, begin)

        monkeypatch.setattr(older.Filling, "_read", held)


async def test_what_a_crowd_has_missed_is_read_once_for_all(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await start()
    published = [await app.publish(f"user/{n}", str(n)) for n in range(40)]
    monkeypatch.setattr(older, "RELEASED", 1)
    monkeypatch.setattr(older, "WAIT_S", 20.0)
    held = Held(monkeypatch)
    again = await start()
    again.service.history.read = AsyncMock(side_effect=AssertionError("the table was read"))
    await held.reading.wait()
    polls = [again.start_poll(f"user/{n}", after=published[n - 1], wait=25) for n in range(1, 30)]
    await until(lambda: len(again.service.filling._waiting) == len(polls))
    assert data(await again.poll("user/39", after=published[38], wait=0)) == [39]  # the window has it
    held.go_on.set()
    assert [data(await poll) for poll in polls] == [[n] for n in range(1, 30)]


async def test_those_that_wait_read_the_table_where_the_window_gets_no_further(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(20)]
    held = Held(monkeypatch)
    held.fails = True
    monkeypatch.setattr(older, "RETRY_S", 60.0)
    again = await start()
    await held.reading.wait()
    poll = again.start_poll("a", after=published[2], wait=25)
    await until(lambda: len(again.service.filling._waiting) == 1)
    held.go_on.set()
    assert data(await poll) == list(range(3, 20))
    assert not again.service.filling.is_over()
    held.go_on.clear()
    assert data(await again.poll("a", after=published[2], wait=25)) == list(range(3, 20))  # it does not wait at all


async def test_a_poll_waits_for_the_window_no_longer_than_leaves_time_for_the_table(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(20)]
    held = Held(monkeypatch)
    again = await start()
    await held.reading.wait()
    assert data(await again.poll("a", after=published[2], wait=0)) == list(range(3, 20))
    assert not held.go_on.is_set()


async def test_no_poll_waits_for_what_the_window_has_no_room_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(20)]
    monkeypatch.setattr(older.Window.__init__, "__defaults__", (9, 32 * 1024 * 1024, None))
    held = Held(monkeypatch)
    again = await start()
    await held.reading.wait()
    again.service.filling.reach = AsyncMock(wraps=again.service.filling.reach)
    assert data(await again.poll("a", after=published[2], wait=25)) == list(range(3, 20))
    again.service.filling.reach.assert_awaited()
    assert not again.service.filling._waiting


async def test_a_window_that_is_full_lets_those_go_on_that_it_does_not_reach(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(20)]
    held = Held(monkeypatch)
    again = await start()
    await held.reading.wait()
    poll = again.start_poll("a", after=published[2], wait=25)
    await until(lambda: len(again.service.filling._waiting) == 1)
    again.service.window._max_count = 9
    held.go_on.set()
    assert data(await poll) == list(range(3, 20))
    assert again.service.filling.is_over()
