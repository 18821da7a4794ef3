"""What a body takes is given back at once, at whatever point its request ends, while the connection lives on or not:
nothing waits for the garbage collector."""

import asyncio
import gc
import hashlib
import hmac
import tracemalloc
from collections.abc import Iterator

import asyncpg
import pytest
from conftest import Running, Start, held, until
from support.halting import Halt
from support.protocol import Line, line

from notifier.core.errors import Unavailable
from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source
from notifier.web import bodies

MIB = 1024 * 1024
SIZE = 4 * MIB
MAX_BODY = 6 * MIB
SECRET = "a secret"
WHOLE = b'{"a": "%b"}' % (b"x" * SIZE)
SIGNED = "X-Hub-Signature-256: sha256=" + hmac.new(SECRET.encode(), WHOLE, hashlib.sha256).hexdigest()
JSON = "Content-Type: application/json"
TARGETS = {"publish": "/v1/topics/t", "batch": "/v1/messages", "ntfy": "/", "webhook": "/hooks/ci"}


@pytest.fixture
async def app(start: Start, database: str) -> Running:
    await add_source(database, check_source("ci", "github", "t", [SECRET]))
    app = await start(max_body=MAX_BODY)
    await app.publish("warm")
    return app


class Memory:
    """What this process has taken since the test began."""

    async def is_given_back(self) -> None:
        await until(lambda: tracemalloc.get_traced_memory()[0] < SIZE // 4)


@pytest.fixture
def memory(app: Running) -> Iterator[Memory]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield Memory()
    tracemalloc.stop()
    gc.enable()


async def part(raw: Line, path: str, *headers: str, size: int = SIZE) -> None:
    """The head of a request, and its body without the last byte."""
    await raw.send(f"POST {path} HTTP/1.1", f"Content-Length: {size + 1}", JSON, *headers, body=b"x" * size)


async def whole(raw: Line, path: str, *headers: str, body: bytes = WHOLE) -> None:
    await raw.send(f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", JSON, *headers, body=body)


async def hung_up(app: Running, raw: Line) -> None:
    """The client hangs up, and the server has noticed."""
    before = set(app.client.server.runner.server.connections)
    raw.hang_up()
    await until(lambda: not before <= set(app.client.server.runner.server.connections))


@pytest.mark.parametrize("target", TARGETS)
async def test_when_the_sender_hangs_up_while_the_body_comes(app: Running, memory: Memory, target: str) -> None:
    async with line(app) as raw:
        await part(raw, TARGETS[target])
        await until(lambda: held(app) >= SIZE)
        await hung_up(app, raw)
        await memory.is_given_back()


@pytest.mark.parametrize("target", TARGETS)
async def test_when_memory_is_short_while_the_body_comes(app: Running, memory: Memory, target: str) -> None:
    async with line(app) as raw:
        await part(raw, TARGETS[target])
        await until(lambda: held(app) >= SIZE)
        with app.service.memory.holding(app.service.memory.limit):
            raw.writer.write(b"x")
            assert (await raw.answer()).status == 503
        # While the connection stays, so that a sender who is still sending gets the answer.
        await memory.is_given_back()
        assert not held(app)


@pytest.mark.parametrize("target", TARGETS)
async def test_when_the_body_stalls(app: Running, memory: Memory, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(bodies, "STALL_S", 0.3)
    async with line(app) as raw:
        await part(raw, TARGETS[target])
        assert (await raw.answer()).status == 408
        await memory.is_given_back()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("rest", "status"), [(b"zz", 400), (b"%x\r\n%b\r\n" % (SIZE, b"x" * SIZE), 413)])
async def test_when_a_piece_is_malformed_or_too_much(
    app: Running, memory: Memory, target: str, rest: bytes, status: int
) -> None:
    async with line(app) as raw:
        await raw.send(f"POST {TARGETS[target]} HTTP/1.1", "Transfer-Encoding: chunked", JSON)
        raw.writer.write(b"%x\r\n%b\r\n" % (SIZE, b"x" * SIZE))
        await until(lambda: held(app) >= SIZE)
        raw.writer.write(rest)
        assert (await raw.answer()).status == status
        await memory.is_given_back()


@pytest.mark.parametrize("target", TARGETS)
async def test_when_what_came_is_refused(app: Running, memory: Memory, target: str) -> None:
    async with line(app) as raw:
        await whole(raw, TARGETS[target], body=WHOLE[:-1])
        assert (await raw.answer()).status in {400, 401}
        await memory.is_given_back()


@pytest.mark.parametrize("target", ["publish", "webhook"])
async def test_when_it_cannot_be_stored(
    app: Running, memory: Memory, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    async def refuse(*_: object) -> None:
        raise Unavailable("The database is away; nothing was stored. Try again.")

    monkeypatch.setattr(app.service.writer, "publish", refuse)
    async with line(app) as raw:
        await whole(raw, TARGETS[target], SIGNED)
        assert (await raw.answer()).status == 503
        await memory.is_given_back()


async def test_when_there_is_no_such_source(app: Running, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    halt = Halt()
    monkeypatch.setattr(app.service.sources, "find", halt.before(app.service.sources.find))
    async with line(app) as raw:
        sending = asyncio.create_task(part(raw, "/hooks/nobody"))
        await halt.reached()
        halt.go_on.set()
        assert (await raw.answer()).status == 404
        await sending
        await memory.is_given_back()


@pytest.mark.parametrize("target", ["publish", "webhook"])
async def test_when_the_sender_hangs_up_while_it_is_read_or_stored(
    app: Running, sql: asyncpg.Connection, memory: Memory, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """It is stored all the same; then the window has it."""
    store = app.service.writer.publish
    halt = Halt()
    monkeypatch.setattr(app.service.writer, "publish", halt.before(store))
    async with line(app) as raw:
        await whole(raw, TARGETS[target], SIGNED)
        await halt.reached()
        await hung_up(app, raw)
        assert held(app) >= SIZE
        halt.go_on.set()
    await until(lambda: not held(app))
    [stored] = await sql.fetch("select length(body) from notifier.message where length(body) > 100")
    assert stored["length"] == len(WHOLE)
    app.service.window.reset(app.service.window.head)
    await memory.is_given_back()
