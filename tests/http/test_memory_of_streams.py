"""What streams keep beside what their clients have not read: large lists, parked or not."""

import pytest
from conftest import Running, Start, held, until
from support.protocol import refusal
from support.streams import SSE, follow

from notifier.core.errors import Unavailable
from notifier.core.topics import TopicList


def topics(name: str) -> str:
    """A list of some 50 kB in memory."""
    return ",".join(f"{name}/{number}" for number in range(100))


async def away(*_: object) -> None:
    raise Unavailable("The database is away.")


@pytest.mark.rule("S-28", "S-42")
async def test_large_lists_count_while_the_database_is_away(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once: those of a crowd are one."""
    size = TopicList.parse(topics("a")).size
    monkeypatch.setattr(app.service.history, "read", away)
    async with follow(app, topics("a"), after="earliest"):
        assert len(app.service.lot) == 0
        assert size <= held(app) < 1.5 * size
        async with follow(app, topics("a"), after="earliest"), follow(app, topics("b"), after="earliest"):
            assert 2 * size <= held(app) < 2.5 * size
        await until(lambda: held(app) < 1.5 * size)
    await until(lambda: held(app) == 0)


@pytest.mark.rule("S-28", "S-42")
async def test_where_memory_is_used_up_no_stream_with_a_large_list_waits_for_the_database(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    monkeypatch.setattr(app.service.history, "read", away)
    async with follow(app, topics("a"), after="earliest"):
        with app.service.memory.holding(app.service.memory.limit * 3 // 4):
            async with app.client.get(f"/v1/topics/{topics('b')}?after=earliest", headers={"Accept": SSE}) as response:
                await refusal(response, 503, "unavailable")
            async with follow(app, "small", after="earliest"):
                pass


@pytest.mark.rule("S-28")
async def test_a_list_counts_while_its_stream_is_not_parked(app: Running) -> None:
    size = TopicList.parse(topics("a")).size
    async with follow(app, topics("a")):
        await app.parked()
        app.service.lot.forget(next(iter(app.service.lot.everybody())))  # as while its client reads
        assert held(app) >= size
    await until(lambda: held(app) == 0)
