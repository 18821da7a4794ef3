"""Parked connections: what they cost, what is told apart, and how they end."""

import asyncio
import contextlib
import gc
import json
import resource
import socket
from datetime import timedelta

import pytest
from conftest import Running, Start, until
from support.protocol import DEADLINE_S, line
from support.seam import KEY, connections, handover, request

from notifier import parking
from notifier.core.grants import Grant
from notifier.core.memory import MemoryBudget
from notifier.core.messages import NewMessage
from notifier.core.polls import Latest, Poll
from notifier.core.topics import TopicList
from notifier.deadlines import TICK_S
from notifier.parking import Waiter
from notifier.web import handover as module
from notifier.web import memory, repolls
from notifier.web.handover import ParkedConnection
from notifier.web.repolls import Shape, Shapes
from notifier.web.responses import variant


async def park(app, raw, *headers, after="latest", topic="t"):
    """Park a poll on this connection; what the handover has of it."""
    count = len(app.service.lot)
    await raw.send(f"GET /v1/topics/{topic}?after={after} HTTP/1.1", *headers)
    await app.parked(count + 1)
    port = raw.writer.get_extra_info("sockname")[1]
    return next((held for held in connections(app) if held.transport.get_extra_info("peername")[1] == port), None)


def head(app):
    """A cursor that has seen everything."""
    return app.service.window.head


def large(size=1_000_000):
    return NewMessage("t", json.dumps("x" * size).encode())


async def wake(app, raw):
    """Answer it; the cursor."""
    await app.publish("t")
    return json.loads((await raw.answer()).body)["cursor"]


async def connect(app, count):
    """That many more connections, which have each sent a poll that is parked now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    already = len(app.service.lot)
    socks = []
    for n in range(count):
        socks.append(await connection(app))
        socks[-1].send(b"GET /v1/topics/t,t%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (n % 10))
    await app.parked(already + count)
    return socks


async def connection(app):
    """A socket that is never read, with small buffers."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (app.client.host, app.client.port))
    return sock


# What is told apart


async def test_a_client_with_a_new_cursor_stays_handed_over(app: Running) -> None:
    async with line(app) as raw:
        first = await park(app, raw, after=head(app))
        assert first
        for _ in range(3):
            assert await park(app, raw, after=await wake(app, raw)) is first


async def test_a_request_that_differs_only_in_what_cannot_matter_stays_handed_over(app: Running) -> None:
    async with line(app) as raw:
        first = await park(app, raw, "X-Request-ID: 1", after=head(app))
        shape = first.shape
        for n in range(3):
            # Not even the place of the cursor is the same.
            again = await park(app, raw, *[f"X-Request-ID: {n}"] * n, "TraceParent: x", after=await wake(app, raw))
            assert again is first
            assert again.shape is shape


@pytest.mark.parametrize(
    "header", ["Cookie: a=b", "X-Forwarded-For: 203.0.113.9", "Origin: http://localhost", "X-Else: 1"]
)
async def test_a_request_that_differs_in_anything_else_is_authorised_anew(app: Running, header: str) -> None:
    async with line(app) as raw:
        first = await park(app, raw, after=head(app))
        shape = first.shape
        again = await park(app, raw, header, after=await wake(app, raw))
        assert again.shape is not shape


async def test_a_request_with_another_credential_is_authorised_anew(app: Running) -> None:
    async with line(app) as raw:
        await park(app, raw, after=head(app))
        await raw.send(f"GET /v1/topics/t?after={await wake(app, raw)} HTTP/1.1", "Authorization: Bearer x")
        assert (await raw.answer()).status == 401


async def test_a_client_behind_a_proxy_is_known_on_any_of_its_connections(app: Running) -> None:
    async with line(app) as raw, line(app) as other:
        first = await park(app, raw, "X-Forwarded-For: 203.0.113.1", "X-Request-ID: 1", after=head(app))
        second = await park(app, other, "X-Forwarded-For: 203.0.113.2", "X-Request-ID: 2", after=head(app))
        shape = first.shape
        await app.publish("t")
        cursor = json.loads((await raw.answer()).body)["cursor"]
        await other.answer()
        again = await park(app, other, "X-Forwarded-For: 203.0.113.1", "X-Request-ID: 3", after=cursor)
        assert again is second
        assert again.shape is shape


async def test_a_client_that_comes_back_on_another_connection_never_meets_aiohttp(app: Running) -> None:
    server = app.client.server.runner.server
    async with line(app) as raw:
        first = await park(app, raw, after=head(app))
    await app.parked(0)
    met = server.requests_count
    async with line(app) as raw:
        again = await park(app, raw, after=head(app))
        assert again is not first
        assert again.shape is first.shape
        published = await app.publish("t")
        assert json.loads((await raw.answer()).body)["cursor"] == published
        assert server.requests_count == met + 1  # of the publish
        await raw.send("GET /healthz HTTP/1.1")
        assert (await raw.answer()).body == b"ok\n"
        assert server.requests_count == met + 2


async def test_one_whose_grant_has_ended_is_authorised_anew_on_another_connection(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    async with line(app) as raw:
        first = await park(app, raw, f"Authorization: Bearer {KEY}", after=head(app))
    await app.parked(0)
    first.shape.grant = Grant("another")
    first.shape.grant.end()
    async with line(app) as raw:
        again = await park(app, raw, f"Authorization: Bearer {KEY}", after=head(app))
        assert again.shape is not first.shape
        assert again.shape.grant.alive
    await app.parked(0)
    again.shape.grant.end()  # as one that was revoked
    app.service.callers._fixed.clear()
    async with line(app) as raw:
        await raw.send(f"GET /v1/topics/t?after={head(app)} HTTP/1.1", f"Authorization: Bearer {KEY}")
        assert (await raw.answer()).status == 401


async def test_a_connection_on_which_nothing_comes_is_counted_and_closed_after_its_time(start: Start) -> None:
    app = await start(keep_alive=timedelta(seconds=1))
    server = app.client.server.runner.server
    async with line(app) as raw:
        await until(lambda: server.fresh)
        assert server.open == 1
        async with asyncio.timeout(DEADLINE_S):
            assert await raw.reader.read() == b""
    await until(lambda: server.open == 0)
    assert not server.fresh


async def test_a_stop_closes_a_connection_on_which_nothing_has_come(app: Running) -> None:
    async with line(app) as raw:
        await until(lambda: app.client.server.runner.server.fresh)
        await app.client.server.runner.cleanup()
        async with asyncio.timeout(DEADLINE_S):
            assert await raw.reader.read() == b""


async def test_clients_that_send_the_same_bytes_share_a_shape(app: Running) -> None:
    async with line(app) as raw, line(app) as other:
        first = await park(app, raw, after=head(app))
        assert first.shape.around is None
        second = await park(app, other, after=head(app))
        assert second.shape is first.shape
        assert b"".join(first.shape.around).startswith(b"GET /v1/topics/t?after= HTTP/1.1\r\n")
        for _ in range(3):
            cursor = await wake(app, raw)
            await other.answer()
            assert await park(app, raw, after=cursor) is first
            assert await park(app, other, after=cursor) is second


async def test_a_wait_begins_anew_with_each_poll(app: Running) -> None:
    loop = asyncio.get_running_loop()
    async with line(app) as raw:
        cursor = str(app.service.window.head)
        for _ in range(3):
            await raw.send(f"GET /v1/topics/t?after={cursor}&wait=20 HTTP/1.1")
            now = loop.time()
            await app.parked()
            [held] = connections(app)
            assert 20 - 0.1 <= held.due * TICK_S - now <= 20 + DEADLINE_S
            assert held.tick <= held.due
            cursor = await wake(app, raw)


# What they cost


async def test_a_parked_connection_holds_no_task(app: Running) -> None:
    socks = await connect(app, 1)
    await until(lambda: not app.client.server.runner.server.connections)
    await until(app.service.filling.is_over)
    before = len(asyncio.all_tasks())
    socks += await connect(app, 499)
    await until(lambda: not app.client.server.runner.server.connections)
    assert len(asyncio.all_tasks()) <= before
    for sock in socks:
        sock.close()
    await app.parked(0)


async def test_one_that_comes_back_and_gets_what_it_missed_is_known_from_then_on(app: Running) -> None:
    begin = head(app)
    await app.publish("t")
    async with line(app) as raw:
        await raw.send(f"GET /v1/topics/t?after={begin} HTTP/1.1")
        cursor = json.loads((await raw.answer()).body)["cursor"]
        [held] = connections(app)
        for _ in range(2):
            assert await park(app, raw, after=cursor) is held
            cursor = await wake(app, raw)


async def test_what_varnish_may_hold_back_stays_with_aiohttp_also_when_it_was_answered(app: Running) -> None:
    begin = head(app)
    await app.publish("t")
    async with line(app) as raw:
        await raw.send(f"GET /v1/topics/t?after={begin} HTTP/1.1", "X-Varnish: 1")
        assert b'"messages": [{' in (await raw.answer()).body
        assert not connections(app)


async def test_a_handler_is_freed_without_the_garbage_collector(app: Running) -> None:
    gc.collect()
    gc.disable()
    try:
        socks = await connect(app, 20)
        await until(lambda: not any(type(thing).__name__ == "ConnectionHandler" for thing in gc.get_objects()))
    finally:
        gc.enable()
    for sock in socks:
        sock.close()


# How they end


@pytest.mark.rule("S-27")
async def test_two_thousand_clients_that_disconnect_at_once_leave_nothing_behind(app: Running) -> None:
    socks = await connect(app, 2000)
    for sock in socks:
        sock.close()
    await app.parked(0)
    lot = app.service.lot
    assert not connections(app)
    assert (len(lot._deadlines), lot._hub._groups, lot._hub._exact) == (0, {}, {})


def lists() -> int:
    """How many lists of topics there are in this process."""
    gc.collect()
    return sum(isinstance(thing, TopicList) for thing in gc.get_objects())


@pytest.mark.parametrize("known", [False, True], ids=["first polls", "polls of a known shape"])
async def test_a_list_is_forgotten_after_its_last_poll(
    app: Running, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Each client has a list of its own."""
    monkeypatch.setattr(handover(app).shapes.lately, "forget_s", -1.0)  # a new shape pushes out all but the last one
    before = lists()
    for n in range(20):
        async with line(app) as raw:
            topics = f"t,user/{n},user/{n}/*"
            assert await park(app, raw, topic=topics, after=head(app) if known else "latest")
            cursor = await wake(app, raw)
            assert await park(app, raw, topic=topics, after=cursor if known else "latest")
        await app.parked(0)
        await until(lambda: not connections(app))
    assert lists() - before <= 2


async def test_an_idle_connection_is_closed_after_its_time(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with line(app) as raw:
        assert await park(app, raw)
        monkeypatch.setattr(handover(app), "idle_s", 0.1)
        await wake(app, raw)
        async with asyncio.timeout(DEADLINE_S):
            assert await raw.reader.read() == b""
        assert not connections(app)


async def test_a_connection_that_went_back_to_aiohttp_is_not_closed_as_idle(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover(app), "idle_s", 0.05)
    async with line(app) as raw, line(app) as other:
        await park(app, raw)
        await park(app, other)
        await app.publish("t")
        await raw.answer()
        await other.answer()
        await raw.send("GET /healthz HTTP/1.1")
        assert (await raw.answer()).status == 200
        async with asyncio.timeout(DEADLINE_S):
            assert await other.reader.read() == b""
        await raw.send("GET /healthz HTTP/1.1")
        assert (await raw.answer()).status == 200


@pytest.mark.both_paths
@pytest.mark.rule("S-30")
async def test_idle_connections_are_closed_after_the_time_that_is_set(start: Start) -> None:
    app = await start(keep_alive=timedelta(seconds=0.2))
    async with line(app) as polled, line(app) as published:
        await polled.send("GET /v1/topics/t HTTP/1.1")
        await app.parked()
        await published.send("POST /v1/topics/t HTTP/1.1", "Content-Length: 1", body=b"1")
        for raw in (published, polled):
            assert (await raw.answer()).status < 300
            async with asyncio.timeout(DEADLINE_S):
                assert await raw.reader.read() == b""


@pytest.mark.rule("S-27")
async def test_a_client_that_does_not_read_is_aborted(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with await connection(app) as sock:
        sock.send(b"GET /v1/topics/t?wait=28 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await app.parked()
        [held] = connections(app)
        monkeypatch.setattr(memory, "PROGRESS_S", 0.1)
        await app.service.publish([large()] * 4)
        await until(lambda: not connections(app))
        assert held.transport.is_closing()


async def test_an_idle_connection_is_closed_after_all_of_its_answer(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with await connection(app) as sock:
        sock.send(b"GET /v1/topics/t?wait=28 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await app.parked()
        [held] = connections(app)
        expired = []
        monkeypatch.setattr(handover(app), "idle_s", 0.05)
        monkeypatch.setattr(ParkedConnection, "expire", lambda self, expire=held.expire: (expired.append(1), expire()))
        await app.service.publish([large(8_000_000)])
        await until(lambda: len(expired) > 2)
        assert held.paused
        assert not held.transport.is_closing()
        received = 0
        async with asyncio.timeout(DEADLINE_S):
            while data := await asyncio.get_running_loop().sock_recv(sock, 2**20):
                received += len(data)
        assert received > 8_000_000  # and then it is idle, and closed
        assert not connections(app)


async def test_a_client_that_reads_slowly_gets_its_answer_to_the_end(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover(app), "idle_s", 0.0)  # an idle connection is aborted at once
    with await connection(app) as sock:
        sock.send(b"GET /v1/topics/t?wait=28 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await app.parked()
        [held] = connections(app)
        await app.service.publish([large()] * 4)
        await until(lambda: held.paused)
        app.service.lot._deadlines.overdue.append(held)
        app.service.lot._work()
        assert not held.transport.is_closing()


async def test_a_client_that_polls_on_without_reading_has_a_bounded_buffer(app: Running) -> None:
    for _ in range(3):
        await app.service.publish([large()])
    with await connection(app) as sock:
        ask = b"GET /v1/topics/t?after=%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
        sock.send(ask % app.service.window.head)
        await app.parked()
        [held] = connections(app)
        await app.publish("t")
        await app.parked(0)
        for _ in range(50):
            with contextlib.suppress(BlockingIOError):
                sock.send(ask % app.service.window.start * 2)
            for _ in range(3):
                await asyncio.sleep(0)
        await until(lambda: not connections(app))
        assert held.transport.get_write_buffer_size() < 8 * 1024 * 1024


@pytest.mark.rule("S-24")
async def test_requests_behind_a_crowd_of_polls_are_not_served_in_one_turn(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [0]
    give_back = ParkedConnection.give_back

    def counted(self: ParkedConnection) -> None:
        given[-1] += 1
        give_back(self)

    monkeypatch.setattr(ParkedConnection, "give_back", counted)
    count = 5 * module.RETURNED
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line(app)) for _ in range(count)]
        for raw in lines:
            await raw.send("GET /v1/topics/a?wait=28 HTTP/1.1")
        await app.parked(count)
        for raw in lines:
            await raw.send("GET /healthz HTTP/1.1")
        await until(lambda: sum(held.behind is not None for held in connections(app)) == count)
        publishing = asyncio.create_task(app.publish("a"))
        async with asyncio.timeout(DEADLINE_S):
            while sum(given) < count:
                given.append(0)
                await asyncio.sleep(0)
        await publishing
        for raw in lines:
            assert b'"messages": [{' in (await raw.answer()).body
            assert (await raw.answer()).status == 200
        assert max(given) <= module.RETURNED


async def test_requests_behind_a_parked_poll_are_bounded(app: Running) -> None:
    async with line(app) as raw:
        held = await park(app, raw)
        raw.writer.transport.set_write_buffer_limits(high=0)
        poll = b"GET /v1/topics/t?wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        sent = 0
        while held.transport.is_reading():
            raw.writer.write(poll * 100)
            sent += 100
            await asyncio.sleep(0)
        assert len(held.behind) < module.MAX_BEHIND + 2**19
        await app.publish("t")
        for _ in range(1 + sent):
            assert (await raw.answer()).status == 200


@contextlib.contextmanager
def answering_others(app: Running):
    """The lot is about to answer others, and does not get on with it."""
    lot = app.service.lot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parking, "TURN", 0)
        other = Waiter(app.service.window.head, 1, "", app.service.callers.nobody)
        lot.park(TopicList(["others"]), other, 2**40, read=False)
        assert lot.busy
        yield
    lot.forget(other)


async def test_a_repoll_waits_until_the_others_have_been_answered(app: Running) -> None:
    async with line(app) as raw, line(app) as gone:
        held = await park(app, raw, after=head(app))
        lost = await park(app, gone, after=head(app))
        cursor = await wake(app, raw)
        await gone.answer()
        with answering_others(app):
            published = await app.publish("t")
            await raw.send(f"GET /v1/topics/t?after={cursor} HTTP/1.1")
            await until(lambda: held.group)
            await raw.send("GET /healthz HTTP/1.1")  # behind it
            await until(lambda: held.behind)
            await gone.send(f"GET /v1/topics/t?after={cursor} HTTP/1.1")
            await until(lambda: lost.group)
            gone.writer.transport.abort()
            await until(lost.transport.is_closing)
            await until(lambda: lost.group is None)
        answer = await raw.answer()
        assert [message["id"] for message in json.loads(answer.body)["messages"]] == [published]
        assert (await raw.answer()).body == b"ok\n"


@pytest.mark.parametrize("meanwhile", ["a message", "a stop", "a hole", "the end of its grant"])
async def test_a_repoll_that_waits_misses_nothing_meanwhile(app: Running, meanwhile: str) -> None:
    async with line(app) as raw:
        held = await park(app, raw, after=head(app))
        cursor = await wake(app, raw)
        with answering_others(app):
            await raw.send(f"GET /v1/topics/t?after={cursor} HTTP/1.1")
            await until(lambda: held.group)
            if meanwhile == "a message":
                published = await app.publish("t")
            elif meanwhile == "a stop":
                await app.service.drain()
            elif meanwhile == "a hole":
                app.service._on_hole(int(cursor) + 1)
            else:
                app.service.callers.nobody.end()
                await app.publish("t")
        answer = await raw.answer()
        if meanwhile == "a message":
            assert [message["id"] for message in json.loads(answer.body)["messages"]] == [published]
        else:
            assert json.loads(answer.body) == {"messages": [], "cursor": cursor}
        assert answer.headers.get("connection") == ("close" if meanwhile == "a stop" else None)


async def test_a_cursor_that_only_aiohttps_path_can_judge_goes_there_while_others_are_answered(app: Running) -> None:
    async with line(app) as raw:
        await park(app, raw, after=head(app))
        await wake(app, raw)
        with answering_others(app):
            await raw.send("GET /v1/topics/t?after=9999999999999999999 HTTP/1.1")
            assert (await raw.answer()).status == 400


@pytest.mark.rule("H-3")
async def test_a_stop_closes_all_parked_connections(start: Start) -> None:
    app = await start()
    async with line(app) as raw, line(app) as idle:
        await park(app, idle)
        await wake(app, idle)
        await park(app, raw)
        await app.service.drain()
        assert (await raw.answer()).headers["connection"] == "close"
        assert len(connections(app)) >= 1
        await app.client.server.runner.cleanup()
        async with asyncio.timeout(DEADLINE_S):
            assert await idle.reader.read() == b""
            assert await raw.reader.read() == b""
        assert not connections(app)


async def test_a_stop_does_not_wait_for_a_client_that_does_not_read(app: Running) -> None:
    with await connection(app) as sock:
        sock.send(b"GET /v1/topics/t?wait=28&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await app.parked()
        await app.service.publish([large(900_000) for _ in range(4)])
        await app.parked(0)
        await app.service.drain()
        await app.client.server.runner.cleanup()
        await until(lambda: not connections(app))


# Shapes


def shape(topic: str = "t") -> Shape:
    return Shape(Poll(TopicList([topic]), Latest()), variant(None, ()), "127.0.0.1", "127.0.0.1", Grant("anyone"))


def test_an_unused_shape_is_forgotten() -> None:
    known = Shapes(MemoryBudget(2**30))
    known.add(b"used", shape(), 1000.0)
    known.add(b"unused", shape(), 1000.0)
    now = 1000.0
    for _ in range(10):
        now += repolls.FORGET_S * 0.7
        assert known.find(b"used", now)
        known.add(b"another", shape(), now)
    assert not known.find(b"unused", now)
    assert len(known.lately) == 2


def test_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repolls, "MAX_BYTES", 100_000)
    memory = MemoryBudget(2**30)
    known = Shapes(memory)
    for n in range(1000):
        known.add(b"%d" % n, shape(), 1000.0)
        assert memory.held == known.lately.size
    assert 190 <= len(known.lately) <= 2 * 200 * 1.1
    assert known.find(b"999", 1000.0)
    for n in range(1000):
        known.add(b"%d" % n, shape("x" * 255), 1000.0)
    assert len(known.lately) <= 2 * 100
    for n in range(1000):
        known.add(b"%d" % n, shape("a/b/c/d/*"), 1000.0)
    assert len(known.lately) <= 2 * 45
    head = b"GET /1 " + b"x" * 8000
    for n in range(1000):
        large = shape()
        large.learn(head, 5, 6)
        known.add(b"%d" % n, large, 1000.0)
        known.share(large, head)
        assert memory.held == known.lately.size <= 220_000
    assert len(known.lately) <= 2 * 14


def test_shapes_take_a_small_part_of_the_memory_and_none_of_what_is_left() -> None:
    memory = MemoryBudget(2**20)
    known = Shapes(memory)
    for n in range(5000):
        known.add(b"%d" % n, shape(), 1000.0)
        if n % 100 == 0:
            known.find(b"%d" % max(0, n - 300), 1000.0)
        assert memory.held == known.lately.size <= 2**20 // 3
    memory.add(2**20)
    known.add(b"one more", shape(), 1000.0)
    assert not known.find(b"one more", 1000.0)


@pytest.mark.parametrize("shared", [False, True], ids=["of one client", "of many"])
def test_only_a_canonical_cursor_is_read_from_the_bytes(shared: bool) -> None:
    known = Shape(Poll(TopicList(["t"]), Latest()), variant(None, ()), "127.0.0.1", "127.0.0.1", Grant("anyone"))
    data = request("/v1/topics/t?after=AT&wait=1")
    before, after = data.split(b"AT")
    for text in (b"0", b"1", b"7", b"42", b"9" * 19):
        assert known.cursor(before + text + after) is None  # it has no place for a cursor
    known.learn(before + b"12" + after, len(before), len(before) + 2)
    if shared:
        assert not known.share(before + b"1" + after + b"1")  # these are not its bytes
        assert known.share(before + b"123" + after)
        assert not known.share(before + b"4" + after)  # it has them already
    for text in (b"0", b"1", b"7", b"42", b"9" * 19):
        assert known.cursor(before + text + after) == int(text)
    for text in (b"", b"00", b"01", b"+1", b" 1", b"1 ", b"1_0", b"-1", b"\xb2", b"x", b"9" * 20, b"1&after=1"):
        assert known.cursor(before + text + after) is None
    assert known.cursor(before + b"1" + after + b"1") is None
    assert known.cursor(before[:-1] + b"1" + after) is None
    assert KEY.encode() in after
    assert known.cursor(before + b"1" + after.replace(KEY.encode(), b"another-key")) is None


async def test_the_handover_of_the_tests_is_the_one_that_serves(app: Running) -> None:
    assert app.client.server.runner.server is handover(app).server
