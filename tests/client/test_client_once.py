"""Reading what is there, and ending; and the cursor, which is where another subscription goes on."""

import asyncio
from contextlib import aclosing

import pytest
from support.scripted import asked

from notifier.client import Gap


@pytest.mark.rule("C-16")
async def test_once_reads_what_was_there_when_it_began_and_ends(scripted, client):
    scripted.sends([], cursor=9)
    scripted.sends([3, 4], cursor=4)
    scripted.sends([], cursor=7)  # a step of a long search
    scripted.sends([8, 11], cursor=12)
    subscription = client.subscribe("t", once=True)
    async with asyncio.timeout(30):
        assert [message.id async for message in subscription] == ["3", "4", "8", "11"]
    assert subscription.cursor == "12"
    assert [query["after"] for query in asked(scripted)] == ["latest", "earliest", "4", "7"]
    assert {query["wait"] for query in asked(scripted)} == {"0"}


@pytest.mark.rule("C-16")
async def test_once_asks_no_more_where_it_knows_all(scripted, client):
    scripted.sends([], cursor=9)
    assert [message async for message in client.subscribe("t", after=9, once=True)] == []
    assert len(scripted.requests) == 1


@pytest.mark.rule("C-16")
async def test_once_is_told_that_the_database_is_an_older_one(scripted, client):
    scripted.sends([], cursor=9)
    scripted.answers('{"messages": [], "cursor": "9", "gap": {"reason": "reset", "after": "5"}}')
    gaps = []
    subscription = client.subscribe("t", after=70, once=True, on_gap=gaps.append)
    assert [message async for message in subscription] == []
    assert (gaps, subscription.cursor) == ([Gap("reset", "5")], "9")


async def test_the_cursor_passes_a_message_when_the_next_one_is_asked_for(scripted, client):
    scripted.sends([3, 4], cursor=6)
    scripted.sends([8], cursor=8)
    subscription = client.subscribe("t", after=2)
    seen = []
    async with asyncio.timeout(30), aclosing(subscription):
        async for message in subscription:
            seen.append((subscription.cursor, message.id))
            if message.id == "8":
                break
    assert seen == [("2", "3"), ("3", "4"), ("6", "8")]
