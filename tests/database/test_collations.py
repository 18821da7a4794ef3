"""A database that orders text and changes its case by the rules of a language: topics are bytes all the same."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from conftest import Running, Start, admin, at, data

from notifier.postgres.migrations import migrate

# Turkish has two letters i; "kn" orders numbers by their value, "shifted" ignores punctuation.
LOCALES = ("tr", "en-u-kn-true", "und-u-ka-shifted")
# By their bytes they are in this order. None is in the range of another one's pattern, unless it matches.
TOPICS = ("P-9/a", "p-10/a", "p-9", "p-9/I", "p-9/alpha", "p-9/i", "p-9:", "p-9:/x", "p.9/a", "p9/a", "p_9/a")


@pytest_asyncio.fixture(params=LOCALES)
async def localised(postgres: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a migrated database with such rules."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    rules = f"locale_provider icu icu_locale '{request.param}' template template0 encoding 'utf8'"
    try:
        await admin(postgres, f"create database {name} {rules}")
    except asyncpg.FeatureNotSupportedError:
        pytest.skip("this Postgres has no ICU; the one of the system has")
    await migrate(at(postgres, name))
    yield at(postgres, name)
    await admin(postgres, f"drop database {name} with (force)")


@pytest.mark.rule("T-3")
async def test_patterns_find_their_topics_in_the_table(localised: str, start: Start) -> None:
    publishing = await start(localised)
    for topic in TOPICS:
        await publishing.publish(topic, f'"{topic}"')
    app: Running = await start(localised)  # its window has none of them
    for pattern, expected in {
        "p-9/*": ["p-9/I", "p-9/alpha", "p-9/i"],
        "p-9:/*": ["p-9:/x"],
        "P-9/**": ["P-9/a"],
        "p9/*,p_9/a": ["p9/a", "p_9/a"],
        "**": list(TOPICS),
    }.items():
        assert data(await app.poll(pattern, after="earliest", wait=0)) == expected
        assert data(await app.poll(pattern, last=1000, wait=0)) == expected
        assert data(await app.poll(pattern, last_each=1, wait=0)) == expected


@pytest.mark.rule("Q-3")
async def test_the_case_of_a_content_type_says_nothing(localised: str) -> None:
    sql = await asyncpg.connect(localised)
    try:
        for content_type in ("APPLICATION/JSON", "Application/Vnd.X+JSON; charset=utf-8"):
            with pytest.raises(asyncpg.InvalidTextRepresentationError):
                await sql.execute("select notifier.publish_bytes('t', '{nonsense', $1)", content_type)
        await sql.execute("select notifier.publish_bytes('t', '{}', 'APPLICATION/JSON')")
        await sql.execute(
            "insert into notifier.scheduled (topic, body, content_type, at) "
            "values ('t', '{}', 'APPLICATION/JSON', now())"
        )
        await sql.execute("select notifier.pump(0, 1000, '{}', '{}', '{}', 1000, 1000000)")
        await sql.execute("select notifier.pump_due(null, 0, 1000, 1000000)")
        assert [row[0] for row in await sql.fetch("select content_type from notifier.message")] == [None, None]
    finally:
        await sql.close()
