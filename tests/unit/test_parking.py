"""The lot, on an event loop but without HTTP or database."""

import asyncio

import pytest

from notifier.core.messages import Message
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.parking import CHUNK, Lot


def publish(window: Window, lot: Lot, *topics: str) -> None:
    before = window.head
    messages = [Message(before + n, topic, b"{}") for n, topic in enumerate(topics, 1)]
    window.extend(messages)
    lot.wake(messages, before)


@pytest.fixture
def window() -> Window:
    return Window()


@pytest.fixture
async def lot(window: Window) -> Lot:
    return Lot(window, max_parked=100_000)


async def test_a_crowd_on_one_topic_does_not_hold_up_another(window: Window, lot: Lot) -> None:
    far = asyncio.get_running_loop().time() + 3600
    crowd, quiet = TopicList(["crowd"]), TopicList(["quiet"])
    waiting = 0

    def come_back(_: object) -> None:
        # As clients do: each asks again at once, from the newest cursor.
        lot.park(crowd, window.head, 100, far, "").future.add_done_callback(come_back)

    for _ in range(20 * CHUNK):
        lot.park(crowd, 0, 100, far, "").future.add_done_callback(come_back)
    for _ in range(50):
        publish(window, lot, "crowd")
        assert len(lot._walks) <= 1  # however many messages come, there is one walk through the crowd
        waiter = lot.park(quiet, window.head, 100, far, "")
        publish(window, lot, "quiet")
        turns = 0
        while not waiter.future.done():
            turns += 1
            await asyncio.sleep(0)
        waiting = max(waiting, turns)
    assert waiting <= 3


async def test_whoever_comes_back_during_a_walk_gets_each_message_once_and_in_order(window: Window, lot: Lot) -> None:
    far = asyncio.get_running_loop().time() + 3600
    topics = TopicList(["t", "u/*"])
    seen: dict[int, list[int]] = {client: [] for client in range(3 * CHUNK)}

    def park(client: int, cursor: int) -> None:
        found = window.read(topics, cursor, 2)
        if found.messages:
            answered(client, [message.seq for message in found.messages], found.cursor)
            return
        waiter = lot.park(topics, found.cursor, 2, far, "")
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
