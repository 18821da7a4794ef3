"""SQL takes the JSON that HTTP takes: what every reader can read, and nothing else."""

import json
import random

import asyncpg
import pytest
from conftest import Running

from notifier.core.strict_json import is_json

BODIES = [
    # Escapes of surrogates, with and without a partner.
    *(rb'"\ud800"', rb'"\ud83d\ude00"', rb'"\ude00\ud83d"', rb'{"\udc00": 1}', rb'"\u0000\ud800"'),
    *(rb'"\\ud800"', rb'"\\\ud800"', rb'"\u0000"', rb'"\\u0000"', rb'"\uD83D\uDE00"', rb'"\uDE00"'),
    # Too large for a double.
    *(b"1e400", b"-1e400", b"1e308", b"1E+309", b"1e+308", b"1e0000309", b"1e-400", b"1e-20000", b"0e99999"),
    *(b"1.7976931348623157e308", b"1.7976931348623158e308", b"1.7976931348623159e308", b"-1.7976931348623159e308"),
    *(b"1e99999999999", b"1e-99999999999", b'"1e400"', b'"1e400", 1', b"9" * 308, b"9" * 309, b"1" * 309),
    *(b"1" * 209 + b"e99", b"1" * 210 + b"e99", b"1" * 300 + b"e9"),
    # Too many digits.
    *(b"9" * 400, b"9" * 401, b"0." + b"1" * 399, b"0." + b"1" * 400, b"1e-" + b"0" * 399, b"1e-" + b"0" * 400),
    *(b"1e-" + b"0" * 398 + b"9", b"1e" + b"0" * 398 + b"9", b"0." + b"0" * 398 + b"1e1", b'"' + b"9" * 500 + b'"'),
    *(rb'["\"' + b"9" * 500 + b'"]', rb'["\\",' + b"9" * 401 + b"]", rb'["\\\"",' + b"1" * 300 + b"]"),
    # Nested too deeply.
    *(b"[" * depth + b"]" * depth for depth in (59, 60, 61, 62, 5000)),
    *(b"[" * depth + b"1" + b"]" * depth for depth in (60, 61)),
    *(b'{"a":' * depth + b"[]" + b"}" * depth for depth in (58, 59, 60)),
    *(b'["]",' * depth + b"1" + b"]" * depth for depth in (60, 61)),
    *(b'["' + b"[" * 100 + b'"]', b"[" + b"[]," * 100 + b"[]]", b"[" * 61, b"]" * 61),
    # Not JSON at all.
    *(b"NaN", b"Infinity", b"[1,]", b"\xef\xbb\xbf1", b"", b" ", b"01", b"1.", b".5", b"+1", b"-", b"'a'", b'"\t"'),
    *(rb'"\x"', rb'"\u12"', b"true false", b"nul", b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b"\x0b1", b"\xc2\xa0 1"),
    *(b" 1\n", b"-0", b'"\x7f"', b'{"a": 1, "a": 2}', '"\u2028\ufeff"'.encode()),
]

LEAVES = [
    *(b"1", b"-1.5", b"1e308", b"1e309", b"9" * 308, b"9" * 310, b"0." + b"3" * 399, b"0." + b"3" * 400, b"1e-400"),
    *(b'"a"', rb'"\ud83d\ude00"', rb'"\ud83d"', b'"e123 9e400"', rb'"\\"', rb'"\""', rb'"\u0000"', b'"[[["', b'"]"'),
]


def any_value(chance: random.Random, depth: int = 0) -> bytes:
    kind = chance.random()
    if kind < 0.2 or depth > 65:
        return chance.choice(LEAVES)
    if kind < 0.7:
        return b"[" + b",".join(any_value(chance, depth + 1) for _ in range(chance.choice([1, 1, 1, 2]))) + b"]"
    return b'{"k": ' + any_value(chance, depth + 1) + b"}"


async def takes(sql: asyncpg.Connection, statement: str, body: bytes | str) -> bool:
    """Whether the statement publishes it; otherwise it is refused as a bad input is."""
    try:
        await sql.execute(statement, body)
    except (asyncpg.InvalidTextRepresentationError, asyncpg.CharacterNotInRepertoireError):
        return False
    return True


@pytest.mark.rule("P-4", "Q-3")
async def test_sql_and_http_accept_the_same_json(sql: asyncpg.Connection) -> None:
    chance = random.Random(7)
    taken = 0
    for body in [*BODIES, *(any_value(chance) for _ in range(400))]:
        expected = is_json(body)
        taken += expected
        as_bytes = await takes(sql, "select notifier.publish_bytes('t', $1, 'application/json')", body)
        assert as_bytes == expected, body
        try:
            text = body.decode()
        except UnicodeDecodeError:
            continue
        for statement in (
            "select notifier.publish('t', $1::text)",
            "select notifier.publish('t', $1::json)",
            "insert into notifier.outbox (topic, data) values ('t', $1)",
        ):
            assert await takes(sql, statement, text) == expected, body
    assert await sql.fetchval("select count(*) from notifier.outbox") > taken > 100


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[" * 61 + b"]" * 61, "nested too deeply: at most 60 levels"),
        (b"[1e400]", "too large for a double"),
        (b"[1e400000]", "too large for a double"),
        (b"9" * 401, "more than 400 digits"),
        (rb'["\ud800"]', "Unicode"),
    ],
)
@pytest.mark.rule("Q-3")
async def test_json_that_some_reader_cannot_read_is_refused_with_a_reason(
    sql: asyncpg.Connection, body: bytes, says: str
) -> None:
    for cast in ("text", "json"):
        with pytest.raises(asyncpg.InvalidTextRepresentationError) as error:
            await sql.execute(f"select notifier.publish('a', $1::{cast})", body.decode())
        assert says in f"{error.value} {error.value.detail}"


async def test_a_number_that_only_jsonb_writes_out_is_refused(sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InvalidTextRepresentationError, match="digits"):
        await sql.execute("select notifier.publish('a', '1e400'::jsonb)")


async def test_ordinary_messages_are_not_checked_twice(app: Running, sql: asyncpg.Connection) -> None:
    """The closer look takes a hundred times as long."""
    await sql.execute(
        "create or replace function notifier.check_json(data text) returns boolean language plpgsql immutable strict "
        "as $$ begin raise exception 'looked at twice'; end $$"
    )
    order = {"id": 42, "status": "paid", "total": 12.5, "tiny": 1e-200, "text": 'Zürich \\ud "e1" 2e3', "note": None}
    for data in (order, [order] * 50, {"text": "0123456789 " * 5000, "escaped": "\u2028\u00e9\x00"}, "x" * 100_000):
        await sql.execute("select notifier.publish('a', $1::text)", json.dumps(data))
        await sql.execute("select notifier.publish_bytes('a', $1, 'application/json')", json.dumps(data).encode())
    with pytest.raises(asyncpg.RaiseError, match="looked at twice"):
        await sql.execute("select notifier.publish('a', '[1e400]')")
