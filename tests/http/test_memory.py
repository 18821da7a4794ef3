"""One budget for what clients make the process keep, on both paths; `make test-all` runs it on both event loops."""

import asyncio
import contextlib
import gc
import json
import socket
import sys
import tracemalloc
from types import SimpleNamespace

import pytest
from aiohttp import web
from conftest import Running, Start, data, held, ids, run, until
from multidict import CIMultiDict
from support.halting import Halt
from support.protocol import DEADLINE_S, JSON, TEXT, line, refusal
from support.seam import connections, peers

from notifier.core.memory import SMALL_ANSWER, MemoryBudget
from notifier.core.messages import NewMessage
from notifier.web import memory
from notifier.web.bodies import read_body
from notifier.web.connections import MAX_BEHIND, MAX_HEAD, PIECE, READ_BUFFER
from notifier.web.handover import HANDOVER

pytestmark = pytest.mark.both_paths

MIB = 1024 * 1024


def clients(app: Running) -> memory.Clients:
    return app.client.server.runner._clients


@pytest.fixture
def filled(app: Running):
    """Pretend that a share of the budget is in use: `filled(app, 0.5)`."""
    with contextlib.ExitStack() as stack:

        def fill(app: Running, share: float = 1.0) -> None:
            stack.enter_context(app.service.memory.holding(int(app.service.memory.limit * share) + 1))

        fill.end = stack.close
        yield fill


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROGRESS_S", 0.1)
    monkeypatch.setattr(memory, "LOOK_S", 0.05)


async def socket_to(app: Running) -> socket.socket:
    """A client that takes little more than what it reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (app.client.host, app.client.port))
    return sock


async def large(app: Running, count: int, size: int = 900_000) -> int:
    """Publish large messages on `t`; a cursor before them."""
    before = app.service.window.head
    await app.service.publish([NewMessage("t", json.dumps("x" * size).encode()) for _ in range(count)])
    return before


def ask(after: int, *, limit: int = 1000, head: str = "") -> bytes:
    return f"GET /v1/topics/t?after={after}&limit={limit} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode()


async def read_all(sock: socket.socket) -> bytes:
    """One whole answer."""
    loop = asyncio.get_running_loop()
    received = b""
    async with asyncio.timeout(DEADLINE_S):
        while b"\r\n\r\n" not in received:
            received += await loop.sock_recv(sock, 65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        parts, left = [body], length - len(body)
        while left:
            parts.append(await loop.sock_recv(sock, 65536))
            left -= len(parts[-1])
    return b"".join(parts)


# Answers


async def test_equal_answers_that_are_not_read_are_held_once(app: Running) -> None:
    before = await large(app, 4)
    socks = [await socket_to(app) for _ in range(10)]
    for sock in socks:
        sock.send(ask(before))
    await until(lambda: len(clients(app)._unread) == 10)
    copies = 10 if clients(app)._copies else 0
    assert 3.6e6 < held(app) < 3.7e6 * (1 + copies) + 10 * 2048
    answers = [json.loads(await read_all(sock)) for sock in socks]
    assert [len(answer["messages"]) for answer in answers] == [4] * 10
    await until(lambda: not held(app))
    for sock in socks:
        sock.close()


async def test_equal_answers_to_parked_polls_that_are_not_read_are_held_once(app: Running) -> None:
    socks = [await socket_to(app) for _ in range(10)]
    for sock in socks:
        sock.send(ask(app.service.window.head))
    await app.parked(10)
    await large(app, 4)
    await until(lambda: len(clients(app)._unread) == 10)
    copies = 10 if clients(app)._copies else 0
    assert 3.6e6 < held(app) < 3.7e6 * (1 + copies) + 10 * 2048
    for sock in socks[1:]:
        sock.close()
    await until(lambda: len(clients(app)._unread) == 1)
    assert held(app) > 3.6e6
    assert len(json.loads(await read_all(socks[0]))["messages"]) == 4
    await until(lambda: not held(app))
    socks[0].close()


async def test_an_answer_that_was_read_is_not_kept(app: Running) -> None:
    before = await large(app, 2)
    with await socket_to(app) as sock:
        sock.send(ask(before))
        await read_all(sock)
        await until(lambda: not held(app))
        await asyncio.sleep(0)
        sent = [thing for thing in gc.get_objects() if isinstance(thing, web.Response)]
        assert not [response for response in sent if response.body and len(response.body) > MIB]
        sock.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")  # it goes on
        assert await read_all(sock) == b"ok\n"


@pytest.mark.usefixtures("impatient")
@pytest.mark.rule("S-27")
@pytest.mark.parametrize("parked", [False, True])
async def test_a_client_that_does_not_read_is_aborted(app: Running, parked: bool) -> None:
    with await socket_to(app) as sock:
        if parked:
            sock.send(ask(app.service.window.head))
            await app.parked()
            await large(app, 4)
        else:
            sock.send(ask(await large(app, 4)))
        await until(lambda: clients(app)._unread)
        await until(lambda: not app.client.server.runner.server.connections and not connections(app))
        assert not held(app)


async def test_a_client_has_time_while_it_reads(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = clients(app)
    monkeypatch.setattr(memory, "LOOK_S", 3600.0)
    with await socket_to(app) as sock:
        sock.send(ask(await large(app, 4)))
        await until(lambda: watch._unread)
        [entry] = watch._unread.values()
        now = entry.began
        unsent = memory._unsent(entry.transport)
        for _ in range(100):
            now += memory.PROGRESS_S
            watch._look_at(entry, now)  # nothing has been read yet when it looks for the first time
            assert not entry.transport.is_closing()
            # A reader on a slow line: the kernel has room for more only now and then.
            unsent -= 1
            monkeypatch.setattr(memory, "_unsent", lambda _, left=unsent: left)
        watch._look_at(entry, now + memory.PROGRESS_S - 1)
        assert not entry.transport.is_closing()
        with app.service.memory.holding(app.service.memory.limit):  # memory is short, and it has had a minute
            watch._look_at(entry, now + 1)
        assert entry.transport.is_closing()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not tell")
async def test_what_the_kernel_has_and_the_client_has_not_counts_as_unread(app: Running) -> None:
    with await socket_to(app) as sock:
        sock.send(ask(await large(app, 4)))
        await until(lambda: clients(app)._unread)
        [entry] = clients(app)._unread.values()
        assert memory._unsent(entry.transport) > entry.transport.get_write_buffer_size() + 4096


@pytest.mark.rule("S-28")
async def test_answers_are_small_while_memory_is_short(app: Running, filled) -> None:
    before = await large(app, 20, 20_000)
    filled(app, 0.5)
    answer = await app.poll("t", after=before, limit=1000)
    assert len(answer["messages"]) == 3
    assert answer["cursor"] == answer["messages"][-1]["id"]
    app.service.window.reset(app.service.window.head)
    from_table = await app.poll("t", after=before, limit=1000)
    assert ids(from_table) == ids(answer)
    filled.end()
    assert len((await app.poll("t", after=before, limit=1000))["messages"]) == 20


@pytest.mark.rule("S-28", "P-19")
async def test_what_needs_memory_is_refused_when_there_is_none(app: Running, filled) -> None:
    before = await large(app, 1)
    small = await app.publish("small")
    filled(app)
    for request in (
        app.client.get("/v1/topics/t", params={"after": str(before)}),
        app.client.get(f"/v1/messages/{small}"),
        app.client.post("/v1/topics/t", data="1", headers=JSON),
        app.client.post("/v1/messages", data=b'[{"topic": "t", "data": 1}]', headers=JSON),
        app.client.post("/hooks/none", data=b"x" * 100_000, headers=TEXT),
    ):
        response = await request
        if response.status != 404:
            assert response.headers["Retry-After"] == "2"
            assert "short of memory" in await refusal(response, 503, "unavailable")
    # A poll is answered from what is there, and parked.
    assert ids(await app.poll("small", after=before)) == [small]
    poll = app.start_poll("t")
    await app.parked()
    filled.end()
    await app.publish("t", "2")
    assert data(await poll) == [2]


@pytest.mark.rule("P-19", "S-28")
async def test_the_last_quarter_of_the_memory_is_for_small_bodies(app: Running, filled) -> None:
    before = await large(app, 1)
    filled(app, 0.75)
    for request in (
        app.client.post("/v1/topics/t", data=b"x" * (64 * 1024 + 1), headers=TEXT),
        app.client.get("/v1/topics/t", params={"after": str(before)}),
    ):
        assert "short of memory" in await refusal(await request, 503, "unavailable")
    async with app.client.post("/v1/topics/t", data=b"x" * 64 * 1024, headers=TEXT) as response:
        assert response.status == 201


async def test_a_client_whose_socket_takes_no_more_is_aborted_when_there_is_no_room(app: Running, filled) -> None:
    with await socket_to(app) as sock, await socket_to(app) as other:
        for each in (sock, other):
            each.send(ask(app.service.window.head))
        await app.parked(2)
        filled(app)
        await app.service.publish([NewMessage("t", b"1")])
        assert len(json.loads(await read_all(other))["messages"]) == 1
        await app.parked(0)
        assert not clients(app)._unread
        other.send(ask(app.service.window.head))
        await app.parked()
        await large(app, 1, 8_000_000)
        await until(lambda: other.getsockname()[1] not in peers(app))
        filled.end()


@pytest.mark.parametrize(("count", "size", "in_time"), [(4, 900_000, False), (1, 8_000_000, True)])
async def test_while_memory_is_short_a_slow_client_has_time_by_the_size_of_its_answer(
    app: Running, filled, monkeypatch: pytest.MonkeyPatch, count: int, size: int, in_time: bool
) -> None:
    monkeypatch.setattr(memory, "LOOK_S", 600.0)
    with await socket_to(app) as sock:
        sock.send(ask(await large(app, count, size)))
        await until(lambda: bool(clients(app)._unread))
        [entry] = clients(app)._unread.values()
        filled(app, 0.5)
        for after_s, lives in ((memory.SLOW_S - 1, True), (memory.SLOW_S + 1, in_time), (size / 65536 + 1, False)):
            entry.left = sys.maxsize  # it reads on
            clients(app)._look_at(entry, entry.began + after_s)
            assert entry.transport.is_closing() != lives
            if not lives:
                break


# Heads


@pytest.mark.rule("E-7")
@pytest.mark.parametrize("after", [b"", b"POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"])
@pytest.mark.rule("E-7")
async def test_a_head_that_does_not_come_in_time_is_408(app: Running, impatient: None, after: bytes) -> None:
    async with line(app) as raw:
        raw.writer.write(after + b"GET /v1/topics/t HTTP/1.1\r\nHost: loc")
        if after:
            assert (await raw.answer()).status == 201
        answer = await raw.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (408, "slow_request")
        assert await raw.reader.read() == b""


async def test_an_idle_connection_and_empty_lines_are_not_a_head(app: Running, impatient: None) -> None:
    async with line(app) as raw:
        raw.writer.write(b"\r\n")
        await asyncio.sleep(0.3)
        await raw.send("GET /healthz HTTP/1.1")
        assert (await raw.answer()).status == 200


@pytest.mark.rule("E-7")
async def test_a_head_has_64_kib_in_all(app: Running) -> None:
    first = b"GET /v1/topics/t?wait=0 HTTP/1.1\r\nHost: localhost\r\n"
    for size, status in ((MAX_HEAD, 200), (MAX_HEAD + 1, 431)):
        left = size - len(first) - 2
        fields = []
        while left:
            length = min(left, 7000) if left > 7100 else left
            fields.append(b"X: " + b"x" * (length - 5) + b"\r\n")
            left -= length
        async with line(app) as raw:
            raw.writer.write(first + b"".join(fields) + b"\r\n")
            answer = await raw.answer()
            assert answer.status == status, answer
            if status == 431:
                assert json.loads(answer.body)["code"] == "head_too_large"
                assert await raw.reader.read() == b""


@pytest.mark.rule("E-7")
async def test_an_unfinished_head_is_counted_and_refused_when_there_is_no_room(app: Running, filled) -> None:
    head = b"GET /v1/topics/t?wait=0 HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"x" * 20_000
    async with line(app) as raw, line(app) as other:
        raw.writer.write(head)
        await until(lambda: held(app) == 3 * len(head))
        filled(app)
        raw.writer.write(b"x")
        other.writer.write(head)
        for refused in (raw, other):
            answer = await refused.answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        # An ordinary request is served.
        assert (await app.client.get("/healthz")).status == 200
        filled.end()
    await until(lambda: not held(app))


async def test_a_large_head_counts_until_the_next_request(app: Running, filled) -> None:
    cookie = "Cookie: " + "x" * 20_000
    async with line(app) as raw:
        for _ in range(2):
            await raw.send("GET /healthz HTTP/1.1", cookie)
            assert (await raw.answer()).status == 200
            assert 60_000 < held(app) < 70_000
        await raw.send("GET /healthz HTTP/1.1")
        await raw.answer()
        await until(lambda: not held(app))
        filled(app, 0.6)
        await raw.send("GET /healthz HTTP/1.1", cookie)
        assert (await raw.answer()).headers["connection"] == "close"


@pytest.mark.parametrize("body", ["length", "chunked"])
async def test_requests_may_be_cut_anywhere(app: Running, body: str) -> None:
    poll = b"GET /v1/topics/none?wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    post = b"POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    if body == "length":
        post += b"Content-Length: 12\r\n\r\n\r\n\r\nGET / a\n"
    else:
        post += b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    both = poll + post + poll
    for cut in range(len(both)):
        async with line(app) as raw:
            raw.writer.write(both[:cut])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raw.writer.write(both[cut:])
            assert [(await raw.answer()).status for _ in range(3)] == [200, 201, 200], cut
    stored = data(await app.poll("t", after="earliest", limit=1000))
    assert stored == ["\r\n\r\nGET / a\n" if body == "length" else "\r\n\r\nx"] * len(both)


# Bodies, and what comes behind


@pytest.mark.rule("P-19")
async def test_a_body_is_counted_while_it_comes_and_until_it_is_stored(app: Running, filled) -> None:
    async with line(app) as raw, line(app) as other:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Content-Length: 600000", body=b"x" * 300_000)
        await until(lambda: held(app) > 300_000)
        await other.send("POST /v1/topics/t HTTP/1.1", "Content-Length: 600000", body=b"x" * 300_000)
        await until(lambda: held(app) > 600_000)
        filled(app)
        raw.writer.write(b"x")
        answer = await raw.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        filled.end()
        other.writer.write(b"x" * 300_000)
        assert (await other.answer()).status == 201
    await until(lambda: not held(app))
    assert len((await app.poll("t", after="earliest"))["messages"]) == 1


@pytest.mark.rule("W-7")
@pytest.mark.parametrize(("count", "piece", "most"), [(20_000, 2, 10), (100, 64 * 1024, 1.3)])
async def test_a_body_that_comes_in_pieces_takes_little_more_than_its_size(count: int, piece: int, most: float) -> None:
    pieces = (b"%02d" % (n % 100) * (piece // 2) for n in range(count))

    class Content:
        def is_eof(self) -> bool:
            return False

        async def readany(self) -> bytes:
            await asyncio.sleep(0)
            return next(pieces, b"")

    request = SimpleNamespace(headers=CIMultiDict(), content_length=None, content=Content())
    tracemalloc.start()
    try:
        body = await read_body(request, 8 * MIB, MemoryBudget(32 * MIB))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body) == count * piece
    assert peak < most * len(body)


async def test_pieces_of_a_body_that_nobody_reads_yet_are_few_and_counted(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    halt = Halt()
    monkeypatch.setattr(app.service.sources, "find", halt.before(app.service.sources.find))
    pieces = b"2\r\nxy\r\n" * 30_000
    async with line(app) as raw:
        tracemalloc.start()
        try:
            await raw.send("POST /hooks/nobody HTTP/1.1", "Transfer-Encoding: chunked", body=b"")
            await halt.reached()
            raw.writer.write(pieces)
            [connection] = [each for each in app.client.server.runner.server.connections if each._open]
            await until(lambda: connection._reading_paused)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(connection._payload._buffer) < 2 * READ_BUFFER // 16
        assert held(app) >= connection._body + PIECE * len(connection._payload._buffer) > connection._body
        assert taken < held(app) + len(pieces) + 200_000  # what is not of this connection
        halt.go_on.set()
        assert (await raw.answer()).status == 404


@pytest.mark.rule("E-7")
@pytest.mark.parametrize(
    "beside",
    [b"1;" + b"x" * MAX_HEAD * 20, b"0\r\n" + (b"X: " + b"x" * 7000 + b"\r\n") * 120],
    ids=["extension", "trailers"],
)
async def test_what_stands_beside_a_body_has_a_bound(app: Running, beside: bytes) -> None:
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n")
        raw.writer.write(beside)
        answer = await raw.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
    await until(lambda: not held(app))


async def test_a_body_of_single_bytes_is_taken(app: Running) -> None:
    async with line(app) as raw:
        body = b"00000001;a=b\r\n1\r\n" * 50_000 + b"0\r\nX-Trailer: 1\r\n\r\n"
        await raw.send(
            "POST /v1/topics/t HTTP/1.1", "Transfer-Encoding: chunked", "Content-Type: text/plain", body=body
        )
        assert (await raw.answer()).status == 201
    [message] = (await app.poll("t", after="earliest"))["messages"]
    assert message["data"] == "1" * 50_000


async def test_the_body_of_a_webhook_for_an_unknown_source_is_not_read(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("POST /hooks/nobody HTTP/1.1", "Content-Length: 1000000", body=b"x" * 999_999)
        assert (await raw.answer()).status == 404
        assert app.service.memory.held < 500_000


@pytest.mark.rule("A-1")
async def test_the_body_of_a_publisher_without_a_key_is_not_read(start: Start) -> None:
    app = await start(admin_keys=("a-good-key!",))
    for path in ("/v1/topics/t", "/v1/messages"):
        async with line(app) as raw:
            await raw.send(f"POST {path} HTTP/1.1", "Content-Length: 1000000", body=b"x" * 999_999)
            assert (await raw.answer()).status == 401


async def test_what_comes_behind_a_parked_poll_is_counted(app: Running, filled) -> None:
    poll = b"GET /v1/topics/t?wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with line(app) as raw, line(app) as other:
        for each in (raw, other):
            await each.send("GET /v1/topics/t HTTP/1.1")
        await app.parked(2)
        raw.writer.write(poll * 1000)
        await until(lambda: held(app) >= min(len(poll) * 1000, MAX_BEHIND))
        filled(app)
        other.writer.write(poll * 1000)
        await app.parked(1)
        assert await other.reader.read() == b""
        filled.end()
        await app.publish("t")
        for _ in range(1001):
            assert (await raw.answer()).status == 200
        await until(lambda: not held(app))


# Parked polls


@pytest.mark.rule("S-28")
async def test_large_lists_count_once_and_are_not_parked_when_there_is_no_room(app: Running, filled) -> None:
    few = ",".join(f"{n}" for n in range(4))
    many = ",".join(f"a/b/c/{n}/*" for n in range(80))
    polls = [app.start_poll(topics) for topics in (few, many, many, many)]
    await app.parked(4)
    lists = held(app)
    assert 100_000 < lists < 400_000
    filled(app)
    assert (await app.poll(many))["messages"] == []  # at once
    polls.append(app.start_poll(few))
    await app.parked(5)
    filled.end()
    polls.append(app.start_poll(many))
    await app.parked(6)
    assert held(app) == lists
    await app.publish("a/b/c/0/x")
    await app.publish("3")
    await asyncio.gather(*polls)
    assert not held(app)


# The budget itself


def test_a_budget_tells_when_much_has_been_freed() -> None:
    budget = MemoryBudget(800)
    told = []
    budget.on_freed = lambda: told.append(budget.freed)
    with budget.holding(500):
        assert (budget.held, budget.short, budget.full) == (500, True, False)
        budget.add(300)
        assert budget.full
        budget.add(-100)
        assert not told
        budget.add(-200)
    assert (budget.held, told) == (0, [300, 800])


async def test_freed_memory_goes_back_to_the_system(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = []
    monkeypatch.setattr(memory, "LOOK_S", 0.01)
    monkeypatch.setattr(memory, "_trim", trimmed.append)
    with app.service.memory.holding(app.service.memory.limit // 4):
        pass
    await until(lambda: trimmed == [0])


async def test_without_glibc_nothing_is_given_back_and_nothing_fails(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import ctypes; ctypes.CDLL = lambda name: object(); "
        "from notifier.web import memory; from notifier import cli; assert memory._trim is None"
    )
    loaded = await asyncio.to_thread(run, sys.executable, "-c", script)
    assert loaded.returncode == 0, loaded.stderr
    monkeypatch.setattr(memory, "LOOK_S", 0.01)
    monkeypatch.setattr(memory, "_trim", None)
    with app.service.memory.holding(app.service.memory.limit // 4):
        pass
    assert app.service.memory.freed
    await until(lambda: not app.service.memory.freed)


def test_a_small_answer_is_much_smaller_than_any_budget() -> None:
    assert SMALL_ANSWER * 100 < 32 * MIB


async def test_both_paths_are_tested(app: Running, fast: bool) -> None:
    assert (HANDOVER in app.client.app) == fast


async def test_late_heads_are_given_up_some_in_each_turn(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOOKED_AT", 10)
    monkeypatch.setattr(memory, "PROGRESS_S", 0.0)
    given_up = 0

    class Late:
        def give_up(self) -> None:
            nonlocal given_up
            given_up += 1

    heads = clients(app)
    late = [Late() for _ in range(35)]
    for connection in late:
        heads._heads[connection] = 0.0
    most, before = 0, 0
    heads._look()
    async with asyncio.timeout(DEADLINE_S):
        while given_up < len(late):
            most, before = max(most, given_up - before), given_up
            await asyncio.sleep(0)
    assert most == 10
