"""Large messages neither kill what reads the log nor make it read more than its bounds at once."""

import asyncpg
import pytest
from conftest import Start, until
from support.tcp_proxy import TcpProxy

from notifier.core.messages import Message
from notifier.postgres import tail

LARGEST = 16 * 1024 * 1024
PUBLISH = "select notifier.publish_bytes('large', decode(repeat($1, $2), 'hex'), $3)"


@pytest.mark.parametrize(
    ("byte", "content_type"),
    [("00", "application/octet-stream"), ("61", "text/plain"), ("01", "text/plain")],
    ids=["bytes", "text", "text that would grow sixfold as JSON"],
)
@pytest.mark.rule("S-13", "Q-3")
async def test_the_largest_message_reaches_parked_and_later_polls(
    start: Start, sql: asyncpg.Connection, byte: str, content_type: str
) -> None:
    app = await start()
    cursor = (await app.poll("large,small", wait=0))["cursor"]
    poll = app.start_poll("large", after=cursor, wait=20)
    await app.parked()
    await sql.execute(PUBLISH, byte, LARGEST, content_type)
    answer = await poll
    if not answer["messages"]:  # larger than the window: it was only woken
        answer = await app.poll("large", after=answer["cursor"])
    [message] = answer["messages"]
    assert len(message["data"]) == (LARGEST if byte == "61" else (LARGEST + 2) // 3 * 4)
    small = await app.publish("small")
    assert [m["id"] for m in (await app.poll("large,small", after=answer["cursor"]))["messages"]] == [small]
    assert app.service.not_ready() is None


FILL = """
select notifier.append(
    array_agg('large'::text), array_agg(convert_to('"' || repeat('x', 30000) || '"', 'UTF8')),
    array_agg(null::text), array_agg(null::text), array_agg(null::text)
) from generate_series(1, 40)
"""


async def test_the_tail_reads_a_backlog_in_pieces_bounded_by_bytes(
    start: Start, proxy: TcpProxy, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MAX_BYTES", 100_000)
    app = await start(listen_url=proxy.url)
    cursor = (await app.poll("large", wait=0))["cursor"]
    pieces: list[int] = []
    on_messages = app.service.tail._on_messages

    def counted(messages: list[Message]) -> None:
        pieces.append(sum(len(message.body) for message in messages))
        on_messages(messages)

    app.service.tail._on_messages = counted
    proxy.refuses = True
    await proxy.cut()
    await until(lambda: not app.service.tail.up)
    await sql.execute(FILL)
    proxy.heal()
    await until(lambda: app.service.not_ready() is None)
    assert len(pieces) == 10
    assert max(pieces) < 150_000
    assert len((await app.poll("large", after=cursor))["messages"]) == 40


async def test_a_slow_line_only_delays_the_backlog(
    start: Start, proxy: TcpProxy, sql: asyncpg.Connection, impatient: None
) -> None:
    app = await start(listen_url=proxy.url)
    cursor = (await app.poll("large", wait=0))["cursor"]
    proxy.bytes_per_s = 400_000  # three seconds for all of it, where one is allowed
    await sql.execute(FILL)
    last = await sql.fetchval("select max(seq) from notifier.message")
    await until(lambda: app.service.tail.position == last)
    assert not app.service.tail._slow
    assert len((await app.poll("large", after=cursor))["messages"]) == 40


@pytest.mark.rule("S-13")
async def test_a_message_that_takes_more_than_the_budget_for_clients_reaches_them(
    start: Start, sql: asyncpg.Connection
) -> None:
    """As JSON it is twice as long; and nothing behind it could be read without it."""
    app = await start(max_memory=32 * 1024 * 1024)
    cursor = (await app.poll("large", wait=0))["cursor"]
    await sql.execute("select notifier.publish_text('large', repeat(E'\\n', $1))", LARGEST)
    await until(lambda: app.service.tail.position > int(cursor))
    [message] = (await app.poll("large", after=cursor))["messages"]
    assert message["data"] == "\n" * LARGEST
