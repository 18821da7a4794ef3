"""Publishers while the service stops: a 201 is stored, a refusal is not, and what is under way is finished first."""

import asyncio
import signal

import asyncpg
import pytest
from conftest import Server, Start, data, until
from support.by_hand import ask
from support.halting import eventually
from support.log import backends, numbers, order_lock, waiting

from notifier.core.errors import OutcomeUnknown, Unavailable
from notifier.core.messages import NewMessage
from notifier.postgres.writer import CONNECTIONS

pytestmark = pytest.mark.usefixtures("tidy")


@pytest.mark.rule("H-4")
async def test_a_publisher_during_the_stop_learns_the_outcome(server: Server, sql: asyncpg.Connection) -> None:
    outcomes: dict[int, int] = {}

    async def publish(first: int) -> None:
        for number in range(first, 1_000_000, 20):
            try:
                outcomes[number], _ = await ask(server, "POST", "/v1/topics/orders", str(number))
            except (OSError, asyncio.IncompleteReadError):
                outcomes[number] = 0  # unknown
                return

    publishers = [asyncio.create_task(publish(first)) for first in range(20)]
    await until(lambda: len(outcomes) > 100)
    assert await asyncio.to_thread(server.stop, signal.SIGTERM) == 0
    await asyncio.gather(*publishers)
    bodies = set(await numbers(sql))
    by_status: dict[int, set[int]] = {}
    for number, status in outcomes.items():
        by_status.setdefault(status, set()).add(number)
    stored = by_status.pop(201)
    unknown = by_status.pop(0, set()) | by_status.pop(504, set())
    refused = by_status.pop(503, set())
    assert not by_status
    assert stored <= bodies <= stored | unknown
    assert not refused & bodies


@pytest.mark.rule("H-4")
async def test_a_commit_under_way_when_the_stop_begins_is_finished_first(start: Start, sql: asyncpg.Connection) -> None:
    app = await start()
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    async with order_lock(sql):
        publishing = asyncio.create_task(app.publish("orders", "1"))
        await waiting(sql)
        draining = asyncio.create_task(app.service.drain())
        answer = await poll
        assert answer["messages"] == []
        assert not draining.done()
    await publishing
    await draining
    assert data(await app.poll("orders", after=answer["cursor"])) == [1]


@pytest.mark.rule("H-4")
async def test_what_the_writer_has_not_sent_when_it_stops_is_not_stored(start: Start, sql: asyncpg.Connection) -> None:
    app = await start()
    writer = app.service.writer
    async with order_lock(sql):
        sent = []
        for number in range(1, 1 + CONNECTIONS):
            sent.append(asyncio.create_task(app.service.publish([NewMessage("orders", b"1")])))
            await waiting(sql, number)
        unsent = asyncio.create_task(app.service.publish([NewMessage("orders", b"2")]))
        await until(lambda: writer._messages == 1)
        await writer.stop()
        for publish in sent:
            with pytest.raises(OutcomeUnknown):
                await publish
        with pytest.raises(Unavailable):
            await unsent
        with pytest.raises(Unavailable):
            await app.service.publish([NewMessage("orders", b"3")])
    # The server ends what its client has left once it notices, or commits it.
    await eventually(lambda: backends(sql, "writer"), lambda found: not found)
    assert await numbers(sql) in ([], [1], [1, 1])
