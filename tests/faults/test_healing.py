"""The database goes away in every way it can: clients stay parked and then get what they missed, once, in order."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Running, Start, until
from support.halting import Halt, Halting, eventually
from support.log import append, backends, end_connections
from support.servers import Postgres
from support.tcp_proxy import TcpProxy
from support.traffic import assert_nothing_lost, following, publishing

from notifier.postgres import history, listening, tail, writer
from notifier.postgres.database import Database
from notifier.postgres.failures import retried


@pytest.mark.parametrize("which", [["tail"], ["writer"], ["tail", "writer"]], ids="+".join)
async def test_connections_that_the_database_ends_lose_and_repeat_nothing(
    app: Running, database: str, sql: asyncpg.Connection, which: list[str]
) -> None:
    async def pids() -> set[int]:
        return await backends(sql, *which)

    count = sum({"tail": 1, "writer": writer.CONNECTIONS}[name] for name in which)
    async with following(app, "orders", "*", "other,**") as followers:
        async with publishing(app, "orders") as publisher:
            for _ in range(6):
                await publisher.has_stored(5)
                old = await eventually(pids, lambda found: len(found) == count)
                await end_connections(sql, *which)
                await eventually(pids, lambda found, old=old: len(found) == count and not found & old)
            await publisher.has_stored(5)
        await assert_nothing_lost(database, publisher, followers)


async def test_a_tail_that_is_cut_off_while_it_probes_listen_does_not_assume_a_pooler(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PROBE_S", 600.0)
    app = await start()
    halt = Halt()
    app.service.tail._publishing = Halting(app.service.tail._publishing, halt)
    await end_connections(sql, "tail")
    await halt.reached()
    await end_connections(sql, "tail")
    halt.go_on.set()
    await until(lambda: app.service.tail.up)
    assert not app.service.tail._deaf


@dataclass
class Outage:
    """A way for the database to go away. `url` is the service's; `direct` always leads to the database if it lives."""

    url: str
    direct: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]
    database_lives: bool = False


@pytest_asyncio.fixture(params=["restart", "crash", "freeze", "refusal", "black hole"])
async def outage(
    request: pytest.FixtureRequest, server_of_ours: Postgres, url_of_ours: str, impatient: None
) -> AsyncIterator[Outage]:
    server = server_of_ours

    async def freeze() -> None:
        server.freeze()

    async def thaw() -> None:
        server.thaw()

    async def refuse() -> None:
        proxy.refuses = True
        await proxy.cut()

    async def swallow() -> None:
        proxy.black_hole()

    async def heal() -> None:
        proxy.heal()

    async with TcpProxy(url_of_ours) as proxy:
        yield {
            "restart": Outage(url_of_ours, url_of_ours, server.stop, server.start),
            "crash": Outage(url_of_ours, url_of_ours, lambda: server.stop(signal.SIGQUIT), server.start),
            "freeze": Outage(url_of_ours, url_of_ours, freeze, thaw),
            "refusal": Outage(proxy.url, url_of_ours, refuse, heal, database_lives=True),
            "black hole": Outage(proxy.url, url_of_ours, swallow, heal, database_lives=True),
        }[request.param]


async def publish_past(url: str) -> list[str]:
    """Commit three messages without the service; their ids."""
    connection = await retried(lambda: asyncpg.connect(url, timeout=1), seconds=20)
    try:
        return await append(connection, "orders", "1", "2", "3")
    finally:
        await connection.close()


async def read_on(app: Running, topics: str, answer: dict, count: int) -> list[str]:
    """The ids of `answer` and of as many polls after it as it takes to have `count`."""
    found = [message["id"] for message in answer["messages"]]
    while len(found) < count:
        answer = await app.poll(topics, after=answer["cursor"], wait=20)
        found += [message["id"] for message in answer["messages"]]
    return found


@pytest.mark.rule("S-23")
async def test_during_an_outage_polls_stay_parked_and_afterwards_get_what_they_missed(
    outage: Outage, start: Start
) -> None:
    app = await start(outage.url)
    published = await app.publish("orders")
    cursors = {"orders": published, "orders,other": published, "*": published}
    parked = {topics: app.start_poll(topics, after=cursor, wait=25) for topics, cursor in cursors.items()}
    unconcerned = app.start_poll("other", after=published, wait=25)
    await app.parked(4)

    await outage.begin()
    await until(lambda: not app.service.tail.up and not app.service.writer.up)
    assert len(app.service.lot) == 4
    assert not any(poll.done() for poll in (*parked.values(), unconcerned))

    async def status(method: str, path: str) -> int:
        async with app.client.request(method, path, data=b"1" if method == "POST" else None) as response:
            if response.status == 503:
                assert response.headers["Retry-After"]
            return response.status

    assert await status("GET", "/healthz") == 200
    assert await status("GET", "/readyz") == 503
    in_need = [
        status("POST", "/v1/topics/orders"),
        status("POST", "/hooks/github"),
        status("GET", "/v1/topics/orders?after=earliest"),
        status("GET", "/v1/topics/orders?last=1"),
        status("GET", "/v1/topics/orders?since=1h"),
        status("GET", f"/v1/messages/{published}"),
    ]
    assert await asyncio.gather(*in_need) == [503] * len(in_need)

    parked["orders,new"] = app.start_poll("orders,new", after=published, wait=25)
    parked["**"] = app.start_poll("**", wait=25)  # from now on
    await app.parked(6)

    if outage.database_lives:
        missed = await publish_past(outage.direct)
        await outage.end()
    else:
        await outage.end()
        missed = await publish_past(outage.direct)
    for topics, poll in parked.items():
        assert await read_on(app, topics, await poll, 3) == missed
    await until(lambda: app.service.not_ready() is None)
    assert await status("GET", "/readyz") == 200
    assert not unconcerned.done()
    await app.publish("other")
    assert len((await unconcerned)["messages"]) == 1


@pytest.mark.rule("S-29")
async def test_no_poll_waits_for_a_frozen_database_longer_than_it_wants_to(
    server_of_ours: Postgres, url_of_ours: str, impatient: None, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TIMEOUT_S", 600.0)
    app = await start(url_of_ours)
    published = await app.publish("orders")
    for _ in range(history.CONNECTIONS):
        await app.poll("orders", after="earliest", wait=0)  # from connections that stay
    server_of_ours.freeze()
    await until(lambda: not app.service.tail.up)
    async with asyncio.timeout(DEADLINE_S):
        for begin in ({"after": published}, {}, {"after": int(published) + 1}):
            answer = await app.poll("orders", wait=0.1, **begin)
            assert answer["messages"] == []
            assert "gap" not in answer


@pytest.mark.rule("S-23")
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not yet noticed"])
@pytest.mark.rule("S-29")
async def test_whatever_a_poll_asks_of_a_frozen_database_it_is_answered_within_a_second_of_its_wait(
    server_of_ours: Postgres,
    url_of_ours: str,
    impatient: None,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    noticed: bool,
) -> None:
    monkeypatch.setattr(history, "TIMEOUT_S", 600.0)
    if not noticed:
        monkeypatch.setattr(tail, "TIMEOUT_S", 600.0)
    app = await start(url_of_ours)
    first, last = await app.publish("orders"), await app.publish("orders")
    app.service.window.reset(int(last))
    for _ in range(history.CONNECTIONS):
        await app.poll("orders", after="earliest", wait=0)  # from connections that stay
    most: list[float] = []

    def watched(method: Any) -> Any:
        def call(*args: Any) -> Any:
            most.append(args[-1] - asyncio.get_running_loop().time())
            return method(*args)

        return call

    for name in ("shared", "read"):
        monkeypatch.setattr(app.service.history, name, watched(getattr(app.service.history, name)))
    server_of_ours.freeze()
    if noticed:
        await until(lambda: not app.service.tail.up)

    async def ask(path: str) -> tuple[int, bool]:
        async with app.client.get(path) as response:
            return response.status, "Retry-After" in response.headers

    topics = "/v1/topics/orders?wait=0.5"
    needed = [f"{topics}&{begin}" for begin in ("after=earliest", f"after={first}", "since=10m", "last=3")]
    needed += [f"/v1/topics/other?wait=0&{begin}" for begin in ("after=earliest", "since=1h", "last=1")]
    others = [f"{topics}&after={int(last) + 10}", f"/v1/topics/orders?wait=0&after={int(last) + 10}", topics]
    async with asyncio.timeout(DEADLINE_S):
        answers = await asyncio.gather(*map(ask, [*needed, f"/v1/messages/{first}"]), *map(ask, others))
    assert answers == [(503, True)] * (len(needed) + 1) + [(200, False)] * len(others)
    assert max(most) <= 0.5 + 1


async def test_a_cursor_ahead_of_a_frozen_tail_waits_no_longer_than_it_wants_to(
    start: Start, database: str, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "TIMEOUT_S", 600.0)
    fast = await start()
    slow = await start(listen_url=proxy.url)
    proxy.black_hole()
    ahead = await fast.publish("orders")
    async with asyncio.timeout(DEADLINE_S):
        answer = await slow.poll("orders", after=ahead, wait=0.1)
    assert answer == {"messages": [], "cursor": ahead}


async def test_polls_of_old_history_do_not_queue_up_behind_a_frozen_database(
    server_of_ours: Postgres, url_of_ours: str, impatient: None, start: Start
) -> None:
    app = await start(url_of_ours)
    server_of_ours.freeze()

    async def status(topic: str) -> int:
        async with app.client.get(f"/v1/topics/{topic}", params={"after": "earliest"}) as response:
            return response.status

    async with asyncio.timeout(DEADLINE_S):
        assert await asyncio.gather(*(status(f"orders/{n}") for n in range(90))) == [503] * 90


@pytest.mark.rule("S-23", "C-1")
async def test_through_outages_followers_lose_and_repeat_nothing(outage: Outage, start: Start) -> None:
    app = await start(outage.url)
    async with following(app, "orders", "*", "other,**") as followers:
        async with publishing(app, "orders") as publisher:
            for _ in range(2):
                await publisher.has_stored(5)
                await outage.begin()
                await until(lambda: not app.service.tail.up and not app.service.writer.up)
                await outage.end()
                await until(lambda: app.service.not_ready() is None)
            await publisher.has_stored(5)
        assert publisher.refused
        await assert_nothing_lost(outage.direct, publisher, followers)


async def test_a_database_soon_gives_up_the_sessions_of_a_machine_that_is_gone(url_of_ours: str) -> None:
    """By what its kernel was told: nobody here can take a cable out."""
    connection = await Database(url_of_ours).connect("test", command_timeout_s=5)
    try:
        shown = [
            int(await connection.fetchval(f"show tcp_keepalives_{name}")) for name in ("idle", "interval", "count")
        ]
    finally:
        connection.terminate()
    assert shown == [60, 10, 3]
