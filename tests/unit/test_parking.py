"""The lot, on an event loop but without HTTP or database."""

import asyncio
from datetime import UTC, datetime

import pytest

from notifier import parking
from notifier.core import window as windows
from notifier.core.grants import Grant
from notifier.core.messages import Message
from notifier.core.polls import Answer
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.parking import ANSWERED, HANDLED, TURN, ParkingLot, Waiter

# More polls than two turns of the loop answer.
CROWD = 3 * TURN // ANSWERED

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def publish(window: Window, lot: ParkingLot, *topics: str) -> int:
    """The id of the last message."""
    before = window.head
    messages = [Message(before + n, topic, NOON, b"{}") for n, topic in enumerate(topics, 1)]
    window.extend(messages)
    lot.wake(messages, before)
    return window.head


def parked(lot: ParkingLot, topics: TopicList, cursor: int, limit: int = 100, *, read: bool = True) -> Waiter:
    waiter = Waiter(cursor, limit, "", Grant("a", admin=True))
    lot.park(topics, waiter, asyncio.get_running_loop().time() + 3600, read=read)
    return waiter


async def settled(lot: ParkingLot) -> int:
    """Let the lot do all its work; how many turns of the loop that took."""
    turns = 0
    async with asyncio.timeout(20):
        while lot.busy:
            turns += 1
            await asyncio.sleep(0)
    return turns


def told(waiter: Waiter) -> tuple[list[int], int]:
    answer = waiter.future.result()
    return [message.seq for message in answer.messages], answer.cursor


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

    for _ in range(20 * TURN // ANSWERED):
        parked(lot, crowd, 0).future.add_done_callback(come_back)
    for _ in range(50):
        publish(window, lot, "crowd")
        assert len(lot._queue) <= 2  # however many messages come, a list stands in the queue once
        waiter = parked(lot, quiet, window.head)
        publish(window, lot, "quiet")
        turns = 0
        while not waiter.future.done():
            turns += 1
            await asyncio.sleep(0)
        waiting = max(waiting, turns)
    assert waiting <= 3


async def test_a_poll_that_returns_while_others_are_answered_gets_each_message_once_and_in_order(
    window: Window, lot: ParkingLot
) -> None:
    topics = TopicList(["t", "u/*"])
    seen: dict[int, list[int]] = {client: [] for client in range(CROWD)}

    def park(client: int, cursor: int) -> None:
        if lot.busy and client % 2:
            waiter = parked(lot, topics, cursor, 2, read=False)
        else:
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
    last = publish(window, lot, "t")
    async with asyncio.timeout(20):
        while any(seqs[-1:] != [last] for seqs in seen.values()):
            await asyncio.sleep(0)
    expected = [message.seq for message in window._messages if topics.matches(message.topic)]
    assert all(seqs == expected for seqs in seen.values())


async def test_a_poll_that_cannot_be_answered_keeps_no_other_waiting(window: Window, lot: ParkingLot) -> None:
    class Broken(Waiter):
        def answer(self, answer: Answer) -> None:
            raise OSError("it is gone")

    topics = TopicList(["t"])
    polls = [parked(lot, topics, 0), Broken(0, 100, "", Grant("a", admin=True)), parked(lot, topics, 0)]
    lot.park(topics, polls[1], asyncio.get_running_loop().time() + 3600)
    polls.append(parked(lot, topics, 0))
    publish(window, lot, "t")
    for poll in (polls[0], polls[2], polls[3]):
        assert [message.seq for message in (await asyncio.wait_for(poll.future, 20)).messages] == [1]
    assert len(lot) == 0


@pytest.mark.parametrize("busy", [False, True])
async def test_after_a_reset_each_poll_keeps_its_own_cursor_and_gets_no_newer_message(
    window: Window, lot: ParkingLot, busy: bool
) -> None:
    """A fail-over or a hole: what lies below the floor may be lost, and only the table can tell."""
    topics = TopicList(["t"])
    publish(window, lot, "other")
    crowd = [parked(lot, topics, 1) for _ in range(CROWD)]
    publish(window, lot, *["other"] * 4)
    while lot._scheduled:  # so that what follows begins at once
        await asyncio.sleep(0)
    if busy:
        publish(window, lot, "t")  # 6: some have it before the reset, the others do not
    before = window.head
    window.reset(1000)
    lot.reset(before)
    for _ in range(5):
        publish(window, lot, "t")
        await asyncio.sleep(0)
    late = parked(lot, topics, window.head)
    newest = publish(window, lot, "t")
    await settled(lot)
    assert {(tuple(seqs), cursor) for seqs, cursor in map(told, crowd)} == {((), 1)} | ({((6,), 6)} if busy else set())
    assert told(late) == ([newest], newest)


async def test_a_poll_that_was_told_everything_below_the_floor_stays(window: Window, lot: ParkingLot) -> None:
    poll = parked(lot, TopicList(["t"]), 0)
    publish(window, lot, *["other"] * 9)
    before = window.head
    window.reset(before)  # retention has overtaken nothing that it had not been told
    lot.reset(before)
    await settled(lot)
    assert not poll.future.done()
    publish(window, lot, "t")
    await settled(lot)
    assert told(poll) == ([10], 10)


async def test_a_read_that_was_cut_is_an_answer(
    window: Window, lot: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_SCAN", 10)
    topics = TopicList(["rare/*"])
    for _ in range(CROWD):
        parked(lot, topics, 0)
    publish(window, lot, "rare/1")
    assert lot.busy
    back = parked(lot, topics, window.head)
    publish(window, lot, *["other"] * 15, "rare/2")
    await settled(lot)
    assert told(back) == ([], 11)
    again = parked(lot, topics, 11, read=False)
    await settled(lot)
    assert told(again) == ([17], 17)


async def test_a_poll_below_the_window_comes_back_to_read_from_the_table(lot: ParkingLot, window: Window) -> None:
    window._max_count = 10
    topics = TopicList(["t"])
    crowd = [parked(lot, topics, 0) for _ in range(CROWD)]
    publish(window, lot, *["other"] * 5)
    while lot._scheduled:  # so that what follows begins at once
        await asyncio.sleep(0)
    publish(window, lot, "t")
    publish(window, lot, *["other"] * 20)  # before the last of the crowd has its message
    await settled(lot)
    assert {tuple(told(poll)[0]) for poll in crowd} == {(6,), ()}
    assert {told(poll)[1] for poll in crowd if not told(poll)[0]} == {5}


async def test_polls_that_are_parked_unread_are_checked_in_their_turn(window: Window, lot: ParkingLot) -> None:
    topics = TopicList(["t"])
    publish(window, lot, "t", "other", "t")
    earlier = parked(lot, topics, window.head)
    behind = parked(lot, topics, 1, read=False)
    kept = parked(lot, topics, 3, read=False)
    await settled(lot)
    assert not kept.future.done()
    assert not earlier.future.done()
    publish(window, lot, "t")
    await settled(lot)
    assert told(behind) == ([3], 3)
    assert told(kept) == told(earlier) == ([4], 4)


async def test_one_message_to_many_lists_costs_no_more_in_one_turn_than_to_one(
    window: Window, lot: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 5 * TURN // ANSWERED
    answered = 0

    class Counting(Waiter):
        work = ANSWERED

        def answer(self, answer: Answer) -> None:
            nonlocal answered
            answered += 1
            super().answer(answer)

    polls = [Counting(0, 100, "", Grant("a", admin=True)) for _ in range(count)]
    for n, poll in enumerate(polls):
        lot.park(TopicList(["all", f"user/{n}"]), poll, asyncio.get_running_loop().time() + 3600)
    publish(window, lot, "all")
    most, before = answered, answered
    while lot.busy:
        await asyncio.sleep(0)
        most, before = max(most, answered - before), answered
    assert answered == count
    assert most <= TURN // ANSWERED + 1
    # They are told the same, so the answer is made once.
    assert len({id(poll.future.result()) for poll in polls}) == 1


async def test_the_search_for_the_lists_of_many_topics_counts_against_the_turn(
    window: Window, lot: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand topics in one batch, each matched by the lists of all clients."""
    steps: list[int] = [0]
    step = lot._search.step

    def counted() -> object:
        steps[-1] += 1
        return step()

    monkeypatch.setattr(lot._search, "step", counted)
    polls = [parked(lot, TopicList([f"user/{n}", "all/*"]), 0) for n in range(300)]
    publish(window, lot, *[f"all/{n}" for n in range(300)])
    while lot.busy:
        steps.append(0)
        await asyncio.sleep(0)
    assert len(steps) > 5
    assert max(steps) <= parking.STEPS_PER_UNIT * TURN
    assert {told(poll)[1] for poll in polls} == {100}


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("one_is_back", [False, True])
async def test_whatever_happens_before_a_list_is_found_its_polls_miss_nothing(
    window: Window, lot: ParkingLot, monkeypatch: pytest.MonkeyPatch, turns: int, one_is_back: bool
) -> None:
    """A deadline, a poll of the same list that comes back, an end: all look at polls that are not found yet."""
    monkeypatch.setattr(parking, "TURN", 4)
    rare = TopicList(["rare"])
    for n in range(10):
        parked(lot, TopicList([f"user/{n}", "all/*"]), 0)
    due, companion, later, last = (parked(lot, rare, 0) for _ in range(4))
    publish(window, lot, *[f"all/{n}" for n in range(10)], "rare")
    newest = publish(window, lot, "all/1")
    for _ in range(turns):
        await asyncio.sleep(0)
    assert lot._search
    lot._deadlines.overdue.append(due)
    due.due = 0
    if one_is_back:
        parked(lot, rare, 11, read=False)  # another process has told it
    lot._end(due, 1)
    assert told(due) == ([11], newest)
    lot.end(retry_after_s=1)
    await settled(lot)
    for poll in (companion, later, last):
        assert told(poll) == ([11], newest)


async def test_topics_whose_lists_are_still_to_be_found_are_bounded(
    window: Window, lot: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_TOPICS", 5)
    polls = [parked(lot, TopicList([f"t/{n}"]), 0) for n in range(20)]
    lot._scheduled = True  # as in a turn whose budget is spent
    for n in range(20):
        publish(window, lot, f"t/{n}")
        assert len(lot._search) <= 5
    lot._turn()
    await settled(lot)
    assert [told(poll) for poll in polls] == [([n], 20) for n in range(1, 21)]


async def test_polls_whose_tasks_go_on_count_as_what_they_cost(window: Window, lot: ParkingLot) -> None:
    polls = [parked(lot, TopicList(["t"]), 0) for _ in range(5 * TURN // HANDLED)]
    publish(window, lot, "t")
    most, before = 0, 0
    while before < len(polls):
        answered = sum(poll.future.done() for poll in polls)
        most, before = max(most, answered - before), answered
        await asyncio.sleep(0)
    assert most <= TURN // HANDLED + 1


async def test_messages_that_a_read_examines_count_against_the_turn(window: Window, lot: ParkingLot) -> None:
    """Lists whose patterns any topic may match look at every message: a few of them are as much work as a crowd."""
    count = 50
    publish(window, lot, *[f"other{n}" for n in range(1500)])
    polls = [parked(lot, TopicList([f"*/a{n}", "b"]), 0, read=False) for n in range(count)]
    assert await settled(lot) >= count * 1500 // parking.MESSAGES_PER_UNIT // TURN
    assert not any(poll.future.done() for poll in polls)


async def test_an_end_answers_all_polls_with_the_position_that_was_reached(window: Window, lot: ParkingLot) -> None:
    publish(window, lot, "t")
    polls = [parked(lot, TopicList([f"quiet/{n}"]), 1) for n in range(CROWD)]
    publish(window, lot, "other")
    lot.end(retry_after_s=1)
    await settled(lot)
    assert {told(poll)[1] for poll in polls} == {2}
    assert {poll.future.result().retry_after_s for poll in polls} == {1}
    assert len(lot) == 0


async def test_a_poll_that_is_parked_unread_has_no_other_checked(window: Window, lot: ParkingLot) -> None:
    topics = TopicList(["t"])
    publish(window, lot, "t", "other")
    kept = [parked(lot, topics, window.head) for _ in range(CROWD)]
    behind = parked(lot, topics, 0, read=False)
    assert await settled(lot) <= 1
    assert told(behind) == ([1], 2)
    publish(window, lot, "t")
    await settled(lot)
    assert {tuple(told(poll)[0]) for poll in kept} == {(3,)}


async def test_the_bytes_of_each_answer_count_against_the_turn(window: Window, lot: ParkingLot) -> None:
    polls = [parked(lot, TopicList(["t"]), 0) for _ in range(20)]
    window.extend([Message(1, "t", NOON, b'"%b"' % (b"x" * 1_000_000))])
    lot.wake(window._messages, 0)
    assert await settled(lot) >= 20 * 1_000_000 // parking.BYTES_PER_UNIT // TURN
    assert {told(poll)[1] for poll in polls} == {1}


async def test_a_read_that_fails_keeps_no_other_list_waiting(
    window: Window, lot: ParkingLot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = TopicList(["t", "bad"]), TopicList(["t"])
    polls = {name: parked(lot, topics, 0) for name, topics in (("bad", bad), ("good", good))}
    read = window.read
    monkeypatch.setattr(window, "read", lambda topics, *rest: 1 / 0 if topics == bad else read(topics, *rest))
    publish(window, lot, "t")
    await settled(lot)
    assert told(polls["good"]) == ([1], 1)
    assert told(polls["bad"]) == ([], 0)  # it asks again from where it was


async def test_the_bytes_of_answers_to_polls_whose_time_is_over_count_against_the_turn(
    window: Window, lot: ParkingLot
) -> None:
    topics = TopicList(["t"])
    waiters = []
    for _ in range(100):
        waiter = Waiter(0, 100, "", Grant("a", admin=True))
        lot.park(topics, waiter, asyncio.get_running_loop().time() - 1)
        waiters.append(waiter)
    before = window.head
    messages = [Message(1, "t", NOON, b"x" * parking.BYTES_PER_UNIT * TURN)]  # a turn's worth
    window.extend(messages)
    lot._search.add(["t"], before)
    lot._deadlines._tick()  # their time ends before they are found
    assert len(lot._deadlines.overdue) == 99
    assert sum(waiter.future.done() for waiter in waiters) <= 2  # one of each kind
