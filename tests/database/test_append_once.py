"""`append_once()`: what has been published with a key is not appended again, and its neighbours do not notice."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from support.log import append, numbers, order_lock, waiting

from notifier.postgres import retention
from notifier.postgres.database import Database
from notifier.postgres.retention import prune

ONCE = """
select seqs, outcomes, now_time, unseen from notifier.append_once(
    array_fill('t'::text, array[cardinality($1::text[])]),
    array(select convert_to(body, 'UTF8') from unnest($1::text[]) body),
    array_fill(null::text, array[cardinality($1::text[])]), array_fill(null::text, array[cardinality($1::text[])]),
    array_fill(null::text, array[cardinality($1::text[])]), $2::bytea[], $3::bytea[], $4::int[]
)
"""
KEYS = "select seq, key from notifier.idempotency order by seq"


async def once(sql: asyncpg.Connection, *publishes: tuple[str | None, str | None, list[int]]) -> list[tuple[int, str]]:
    """Append publishes, each with its key, its digest and its messages; the seq and the outcome of each."""
    bodies = [str(number) for *_, body in publishes for number in body]
    keys, digests = (
        [each and each.encode() for each in given] for given in zip(*(p[:2] for p in publishes), strict=True)
    )
    row = await sql.fetchrow(ONCE, bodies, keys, digests, [len(body) for *_, body in publishes])
    return list(zip(row["seqs"], row["outcomes"], strict=True))


async def test_duplicates_and_conflicts_leave_the_others_as_they_are_and_in_order(sql: asyncpg.Connection) -> None:
    [(first, outcome)] = await once(sql, ("a", "x", [1, 2, 3]))
    assert outcome == "new"
    found = await once(
        sql,
        (None, None, [4]),
        ("a", "x", [1, 2, 3]),  # as before
        ("b", "y", [5, 6]),
        ("a", "z", [7]),  # another request with that key
        (None, None, [8]),
        ("b", "y", [5, 6]),  # as one of this call
        ("b", "x", [9]),
        ("c", None, [10]),
        (None, None, [11]),
        ("c", None, [12]),  # without a digest the key alone counts
    )
    assert found == [
        (first + 3, "new"),
        (first, "duplicate"),
        (first + 4, "new"),
        (first, "conflict"),
        (first + 6, "new"),
        (first + 4, "duplicate"),
        (first + 4, "conflict"),
        (first + 7, "new"),
        (first + 8, "new"),
        (first + 7, "duplicate"),
    ]
    assert await numbers(sql) == [1, 2, 3, 4, 5, 6, 8, 10, 11]
    assert [tuple(row) for row in await sql.fetch(KEYS)] == [(first, b"a"), (first + 4, b"b"), (first + 7, b"c")]
    assert await append(sql, "t", "13") == [str(first + 9)]  # no number is wasted


async def test_publishes_without_a_key_are_appended_each(sql: asyncpg.Connection) -> None:
    found = await once(sql, *[(None, None, [1])] * 3)
    assert [outcome for _, outcome in found] == ["new"] * 3
    assert await numbers(sql) == [1, 1, 1]
    assert await sql.fetch(KEYS) == []


async def test_a_call_of_nothing_but_duplicates_stores_nothing(sql: asyncpg.Connection) -> None:
    [(first, _)] = await once(sql, ("a", "x", [1]))
    drawn = await sql.fetchval("select last_value from notifier.message_seq")
    assert await once(sql, ("a", "x", [1]), ("a", "x", [1])) == [(first, "duplicate")] * 2
    assert await numbers(sql) == [1]
    assert await sql.fetchval("select last_value from notifier.message_seq") == drawn


async def test_of_two_at_once_the_one_behind_the_lock_finds_the_other(database: str, sql: asyncpg.Connection) -> None:
    others = [await asyncpg.connect(database) for _ in range(4)]
    async with order_lock(sql):
        calls = [asyncio.create_task(once(other, ("a", "x", [1]), (None, None, [n]))) for n, other in enumerate(others)]
        await waiting(sql, len(others))  # each has begun before any of them can see another
    found = [await call for call in calls]
    assert sorted(each[0][1] for each in found) == ["duplicate"] * 3 + ["new"]
    assert len({each[0][0] for each in found}) == 1
    assert len(await numbers(sql)) == 5
    for other in others:
        await other.close()


async def test_what_is_rolled_back_leaves_no_key(sql: asyncpg.Connection) -> None:
    transaction = sql.transaction()
    await transaction.start()
    await once(sql, ("a", "x", [1]))
    await transaction.rollback()
    assert await sql.fetch(KEYS) == []
    assert (await once(sql, ("a", "x", [1])))[0][1] == "new"


async def test_keys_are_kept_for_four_days_and_go_by_range(
    database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEY_SLICE", 3)
    for n in range(10):
        await once(sql, (str(n), "x", [n]))
    aged = "update notifier.idempotency set time = time - interval '{}' where key < '{}'"
    await sql.execute(aged.format("3 days 23 hours", "9"))
    await sql.execute(aged.format("61 minutes", "8"))
    # Their messages are gone earlier: the keys do not need them.
    assert await prune(await Database.probe(database), timedelta(0)) == 10
    assert [row["key"] for row in await sql.fetch(KEYS)] == [b"8", b"9"]
    assert [(await once(sql, (key, "x", [int(key)])))[0][1] for key in "789"] == ["new", "duplicate", "duplicate"]


async def test_looking_up_and_pruning_keys_scans_no_table_even_when_planned_on_an_empty_one(
    sql: asyncpg.Connection,
) -> None:
    await once(sql, ("a", "x", [0]))
    await sql.execute("select notifier.prune_idempotency(now() - interval '4 days', 1000)")
    await sql.execute("""
        insert into notifier.idempotency
        select n, convert_to(n::text, 'UTF8'), null, now() from generate_series(1, 20000) n;
        analyze notifier.idempotency;
    """)
    plans: list[str] = []
    sql.add_log_listener(lambda _, message: plans.append(str(message)))
    await sql.execute("""
        load 'auto_explain';
        set auto_explain.log_min_duration = 0;
        set auto_explain.log_nested_statements = on;
        set client_min_messages = log;
    """)
    assert (await once(sql, ("777", None, [1]), ("b", "x", [2])))[0][0] == 777
    await sql.execute("update notifier.idempotency set time = time - interval '5 days' where seq < 10")
    assert await sql.fetchval("select notifier.prune_idempotency(now() - interval '4 days', 1000)") == 9
    ours = [plan for plan in plans if "idempotency" in plan]
    assert any("Index Scan using idempotency_key_key" in plan for plan in ours)
    assert any("idempotency_pkey" in plan for plan in ours)
    assert not [plan for plan in plans if "Seq Scan on idempotency" in plan or "JIT:" in plan]
