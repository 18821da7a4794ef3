"""Large bodies are stored before the order lock is taken, and nothing else is different for them."""

import asyncio
import hashlib

import asyncpg
import pytest
from conftest import Running
from support.halting import eventually

from notifier.core.messages import NewMessage

LARGE = 3 * 1024 * 1024
HELD = 79

APPEND = """
select first_seq from notifier.append(
    $1::text[], $2::bytea[], array_fill(null::text, array[cardinality($2)]),
    array(select json_build_object('title', t)::text from unnest($1::text[]) t),
    array_fill(null::text, array[cardinality($2)])
)
"""
ONCE = """
select seqs, outcomes from notifier.append_once(
    $1::text[], $2::bytea[], array_fill(null::text, array[cardinality($2)]),
    array_fill(null::text, array[cardinality($2)]), array_fill(null::text, array[cardinality($2)]),
    $3::bytea[], $3::bytea[], $4::int[]
)
"""
ROWS = """
select m.seq, t.name, m.body, m.fields ->> 'title' as title, m.time from notifier.message m
left join notifier.topic t on t.id = m.topic_id order by m.seq
"""


def body(number: int, size: int = LARGE) -> bytes:
    """What no compression makes smaller."""
    return b'"%b"' % hashlib.shake_128(bytes([number])).hexdigest(size // 2).encode()


@pytest.mark.rule("P-5", "T-7")
async def test_large_and_small_bodies_keep_their_order(sql: asyncpg.Connection) -> None:
    for turn in range(2):  # with topics that are new, and known
        bodies = [b"1", body(1), b"2", body(2), b"3"]
        names = ["a", "b", "b", "a", "c"]
        first = await sql.fetchval(APPEND, names, bodies)
        rows = (await sql.fetch(ROWS))[5 * turn :]
        assert [row["seq"] for row in rows] == list(range(first, first + 5))
        assert [row["body"] for row in rows] == bodies
        assert [row["name"] for row in rows] == [row["title"] for row in rows] == names
        assert len({row["time"] for row in rows}) == 1
        assert rows[0]["time"] > await sql.fetchval("select now() - interval '1 minute'")


async def test_duplicates_that_are_large_leave_nothing(sql: asyncpg.Connection) -> None:
    bodies = [body(1), body(2), b"1", body(3)]
    topics = ["a", "b", "c", "d"]
    # The second is the first once more; the last two are one publish.
    row = await sql.fetchrow(ONCE, topics, bodies, [b"k", b"k", None], [1, 1, 2])
    first = row["seqs"][0]
    assert (row["seqs"], row["outcomes"]) == ([first, first, first + 1], ["new", "duplicate", "new"])
    row = await sql.fetchrow(ONCE, topics[:1], bodies[:1], [b"k"], [1])
    assert (row["seqs"], row["outcomes"]) == ([first], ["duplicate"])
    rows = await sql.fetch(ROWS)
    assert [(row["seq"], row["name"], row["body"]) for row in rows] == [
        (first, "a", bodies[0]),
        (first + 1, "c", bodies[2]),
        (first + 2, "d", bodies[3]),
    ]


async def test_a_large_body_is_written_once(sql: asyncpg.Connection) -> None:
    await sql.execute("checkpoint")
    before = await sql.fetchval("select pg_current_wal_insert_lsn()")
    await sql.fetchval(APPEND, ["a"], [body(1)])
    written = await sql.fetchval("select pg_current_wal_insert_lsn() - $1::pg_lsn", before)
    assert LARGE < written < 1.5 * LARGE


@pytest.mark.parametrize("way", ["body", "key", "sql"])
async def test_others_publish_while_a_large_body_is_stored(
    app: Running, database: str, sql: asyncpg.Connection, way: str
) -> None:
    source = await sql.fetchval("select pg_get_functiondef('notifier.store_ahead'::regproc)")
    head, _, rest = source.partition("\nbegin\n")
    assert rest
    await sql.execute(f"{head}\nbegin perform pg_advisory_xact_lock({HELD}); {rest}")
    holder = await asyncpg.connect(database)
    await holder.execute(f"select pg_advisory_lock({HELD})")
    waiting = "select from pg_locks where locktype = 'advisory' and objid = $1 and not granted"
    if way == "sql":
        publishing = asyncio.create_task(sql.execute("select notifier.publish('large', $1::text)", body(1).decode()))
    elif way == "key":
        once = ([body(1)], [b"k"], [1])
        publishing = asyncio.create_task(sql.fetchrow(ONCE, ["large"], *once))
    else:
        publishing = asyncio.create_task(app.service.publish([NewMessage("large", body(1))]))
    await eventually(lambda: holder.fetch(waiting, HELD))
    await app.publish("small")
    await holder.execute(f"select pg_advisory_unlock({HELD})")
    await publishing
    rows = await eventually(lambda: holder.fetch(ROWS), lambda rows: len(rows) == 2)
    assert [row["name"] for row in rows] == ["small", "large"]
    await holder.close()
