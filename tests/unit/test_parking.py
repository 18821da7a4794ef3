"""The lot, on an event loop but without HTTP or database."""

import asyncio
from datetime import UTC, datetime

import pytest

from notifier.core.messages import Message
from notifier.core.polls import Answer
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.parking import CHUNK, ParkingLot, Waiter

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def publish(window: Window, lot: ParkingLot, *topics: str) -> None:
    before = window.head
    messages = [Message(before + n, topic, NOON, b"{}") for n, topic in enumerate(topics, 1)]
    window.extend(messages)
    lot.wake(messages, before)


def parked(lot: ParkingLot, topics: TopicList, cursor: int, limit: int = 100) -> Waiter:
    waiter = Waiter(cursor, limit, "")
    lot.park(topics, waiter, asyncio.get_running_loop().time() + 3600)
    return waiter


@pytest.fixture
def window() -> Window:
    return Window()


@pytest.fixture
async def lot(window: Window) -> ParkingLot:
    return ParkingLot(window, max_parked=100_000)


async def test_a_crowd_on_one_topic_does_not_hold_up_another(window: Window, lot: ParkingLot) -> None:
    crowd, quiet = TopicList(["crowd"]), TopicList(["quiet"])
    waiting = 0

    def come_back(_: object) -> None:
        # As clients do: each asks again at once, from the newest cursor.
        parked(lot, crowd, window.head).future.add_done_callback(come_back)

    for _ in range(20 * CHUNK):
        parked(lot, crowd, 0).future.add_done_callback(come_back)
    for _ in range(50):
        publish(window, lot, "crowd")
        assert len(lot._walks) <= 1  # however many messages come, there is one walk through the crowd
        waiter = parked(lot, quiet, window.head)
        publish(window, lot, "quiet")
        turns = 0
        while not waiter.future.done():
            turns += 1
            await asyncio.sleep(0)
        waiting = max(waiting, turns)
    assert waiting <= 3


async def test_a_poll_that_returns_during_a_walk_gets_each_message_once_and_in_order(
    window: Window, lot: ParkingLot
) -> None:
    topics = TopicList(["t", "u/*"])
    seen: dict[int, list[int]] = {client: [] for client in range(3 * CHUNK)}

    def park(client: int, cursor: int) -> None:
        found = window.read(topics, cursor, 2)
        if found.messages:
            answered(client, [message.seq for message in found.messages], found.cursor)
            return
        waiter = parked(lot, topics, found.cursor, 2)
        waiter.future.add_done_callback(
            lambda done: answered(client, [message.seq for message in done.result().messages], done.result().cursor)
        )

    def answered(client: int, seqs: list[int], cursor: int) -> None:
        seen[client] += seqs
        asyncio.get_running_loop().call_soon(park, client, cursor)

    for client in seen:
        park(client, 0)
    for n in range(40):
        publish(window, lot, *(["t", "u/1", "other"][: n % 4]))
        if n % 3:
            await asyncio.sleep(0)
    publish(window, lot, "t")
    last = window.head
    async with asyncio.timeout(20):
        while any(seqs[-1:] != [last] for seqs in seen.values()):
            await asyncio.sleep(0)
    expected = [message.seq for message in window._messages if topics.matches(message.topic)]
    assert all(seqs == expected for seqs in seen.values())


async def test_a_poll_that_cannot_be_answered_keeps_nobody_else_waiting(window: Window, lot: ParkingLot) -> None:
    class Broken(Waiter):
        def answer(self, answer: Answer) -> None:
            raise OSError("it is gone")

    topics = TopicList(["t"])
    polls = [parked(lot, topics, 0), Broken(0, 100, ""), parked(lot, topics, 0)]
    lot.park(topics, polls[1], asyncio.get_running_loop().time() + 3600)
    polls.append(parked(lot, topics, 0))
    publish(window, lot, "t")
    for poll in (polls[0], polls[2], polls[3]):
        assert [message.seq for message in (await asyncio.wait_for(poll.future, 20)).messages] == [1]
    assert len(lot) == 0
