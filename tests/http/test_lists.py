"""Lists of topics and patterns in `GET /v1/topics/{list}`, from the window and from the table."""

import json

import pytest
from aiohttp import web
from conftest import Running, data, ids
from support.protocol import empty_window, exactly, line, refusal

FROM = pytest.mark.parametrize("table", [False, True], ids=["from the window", "from the table"])


async def publish(app, *topics, table=False):
    """One message to each topic, whose data is its place; afterwards the window is emptied to read from the table."""
    for n, topic in enumerate(topics):
        await app.publish(topic, str(n))
    if table:
        empty_window(app)


async def read(app, topics):
    return data(await app.poll(exactly(topics), after="earliest", wait=0))


@FROM
@pytest.mark.rule("T-4", "T-7")
async def test_a_list_gives_the_messages_of_all_its_topics_in_one_order(app: Running, table: bool) -> None:
    await publish(app, "b", "a", "c", "a", "b/x", table=table)
    assert await read(app, "a,b") == [0, 1, 3]
    assert await read(app, "b,a,a") == [0, 1, 3]
    assert await read(app, "b/x,none") == [4]


@FROM
@pytest.mark.rule("T-3")
async def test_a_star_is_one_segment_and_two_are_one_or_more(app: Running, table: bool) -> None:
    await publish(app, "a", "a/b", "a/b/c", "b/b", "ab/b", "a/b.c", table=table)
    for pattern, found in (
        ("*", [0]),
        ("**", [0, 1, 2, 3, 4, 5]),
        ("a/*", [1, 5]),
        ("a/**", [1, 2, 5]),
        ("*/b", [1, 3, 4]),
        ("*/*", [1, 3, 4, 5]),
        ("*/**", [1, 2, 3, 4, 5]),
        ("a/*/c", [2]),
        ("*/*/*", [2]),
        ("z/**", []),
    ):
        assert await read(app, pattern) == found, pattern


@FROM
@pytest.mark.rule("S-4")
async def test_a_message_comes_once_even_if_several_items_match_it(app: Running, table: bool) -> None:
    await publish(app, "a/b", "a", table=table)
    assert await read(app, "a/b,a/*,*/b,*/*,a/**,**") == [0, 1]


@pytest.mark.rule("S-4")
async def test_a_parked_poll_gets_a_message_once_even_if_several_items_match_it(app: Running) -> None:
    poll = app.start_poll("a/b,a/*,*/b,**", wait=28)
    await app.parked()
    published = await app.publish("a/b")
    assert ids(await poll) == [published]


@FROM
@pytest.mark.rule("T-3")
async def test_special_characters_of_a_topic_match_only_themselves(app: Running, table: bool) -> None:
    await publish(app, "a.b/x", "aXb/x", "a+b/x", "aab/x", "a@b:c=d-e_f/x", table=table)
    assert await read(app, "a.b/*") == [0]
    assert await read(app, "a+b/*") == [2]
    assert await read(app, "a@b:c=d-e_f/*") == [4]


@pytest.mark.rule("T-5")
async def test_a_path_is_decoded_once_and_then_split(app: Running) -> None:
    await publish(app, "orders/42", "b", "a+b")
    assert await read(app, "orders%2F42") == [0]
    assert await read(app, "orders%2f42%2Cb") == [0, 1]
    assert await read(app, "orders/%2A") == [0]
    assert await read(app, "a+b") == [2]
    assert await read(app, "a%2Bb") == [2]


@pytest.mark.rule("S-15")
async def test_a_poll_is_woken_by_its_own_topics_only(app: Running) -> None:
    polls = {topics: app.start_poll(topics, wait=28) for topics in ("a/1", "a/2", "a/*", "*/1", "b/**", "*", "a/1/*")}
    await app.parked(len(polls))
    published = await app.publish("a/1")
    await app.parked(len(polls) - 3)
    for topics in ("a/1", "a/*", "*/1"):
        assert ids(await polls.pop(topics)) == [published]
    assert not any(poll.done() for poll in polls.values())
    for poll in polls.values():
        poll.cancel()
    await app.parked(0)


@pytest.mark.rule("T-4")
async def test_a_list_has_at_most_a_hundred_items(app: Running) -> None:
    hundred = ",".join(f"t{n}" for n in range(100))
    await publish(app, "t99")
    assert await read(app, f"{hundred},{hundred}") == [0]
    response = await app.client.get(f"/v1/topics/{hundred},t100")
    assert "at most 100" in await refusal(response, 400, "invalid_topic")


@pytest.mark.rule("T-4")
async def test_the_patterns_of_a_list_have_at_most_400_segments_together(app: Running) -> None:
    await publish(app, "a/99/a/a")
    patterns = ",".join(f"*/{n}/a/*" for n in range(100))
    assert await read(app, patterns) == [0]
    response = await app.client.get(exactly(f"/v1/topics/{patterns.replace('*/0/a/*', '*/0/a/a/*')}"))
    assert "at most 400 segments" in await refusal(response, 400, "invalid_topic")


@pytest.mark.rule("T-1", "T-3")
async def test_an_invalid_list_is_refused_with_the_reason(app: Running) -> None:
    for topics, because in (
        ("", "cannot be empty"),
        (",", "cannot be empty"),
        ("a,", "cannot be empty"),
        ("a,,b", "cannot be empty"),
        ("/a", "segments separated by /"),
        ("a//b", "segments separated by /"),
        ("a/../b", "no segment may be"),
        ("a/%2e%2e/b", "no segment may be"),
        ("a*", "one whole segment"),
        ("**/a", "** at the end"),
        ("a%252Fb", "consists of letters"),
        ("a%2C%2Cb", "cannot be empty"),
        ("a%20b", "consists of letters"),
        ("caf%C3%A9", "consists of letters"),
        ("%FF", "consists of letters"),
        ("a%0D%0Ab", "consists of letters"),
        ("%zz", "consists of letters"),
        ("x" * 256, "at most 255"),
    ):
        async with line(app) as raw:
            await raw.send(f"GET /v1/topics/{topics} HTTP/1.1")
            answer = await raw.answer()
        problem = json.loads(answer.body)
        assert (answer.status, problem["code"]) == (400, "invalid_topic"), topics
        assert because in problem["detail"], topics


@pytest.mark.rule("T-1")
async def test_bytes_in_the_path_that_are_not_ascii_are_refused(app: Running) -> None:
    for path in (b"caf\xc3\xa9", b"\xff", b"a\x00b"):
        async with line(app) as raw:
            await raw.send(b"GET /v1/topics/" + path + b"?wait=0 HTTP/1.1")
            assert (await raw.answer()).status == 400


async def test_a_path_of_many_segments_is_not_looked_up_prefix_by_prefix(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk(*_: object) -> None:
        raise AssertionError("this takes 0.2 s for such a path")

    monkeypatch.setattr(web.UrlDispatcher, "resolve", walk)
    topics = ",".join(f"{n}/" + "a/" * 40 + "a" for n in range(100))
    async with app.client.get(f"/v1/topics/{topics}?wait=0") as response:
        assert response.status == 200
    async with app.client.delete(f"/v1/topics/{topics}") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, OPTIONS, POST, PUT")
    async with app.client.post(f"/v1/topics/{'a/' * 20}a", data="1") as response:
        assert response.status == 201
    async with app.client.get("/" + "a/" * 20_000) as response:
        assert response.status == 404
