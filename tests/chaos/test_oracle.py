"""The oracle can say no: right answers pass, and each of them, changed in any one way that matters, does not."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from chaos.ledger import Fate, Ledger, Message
from chaos.oracle import Answer, Asked, judge
from chaos.record import Record, Row
from chaos.topics import Topics

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
START = 1000
AFTER_FAILOVER = 5000


def row(seq: int, topic: str, text: str = "") -> Row:
    return Row(seq, topic, BEGAN + timedelta(seconds=seq), b'{"t": "<%d>%b"}' % (seq, text.encode()), None, None)


def log(*seqs: int) -> list[Row]:
    """Even ids are of topic a/1, odd ones of b."""
    return [row(seq, "b" if seq % 2 else "a/1") for seq in seqs]


@pytest.fixture
def record() -> Record:
    """Ids 1001 to 1008; up to 1002 pruned."""
    record = Record()
    record.life.start = START
    record.read(log(*range(1001, 1009)), 1001)
    record.read(log(*range(1003, 1009)), 1003)
    return record


@pytest.fixture
def forked(record: Record) -> Record:
    """A fail-over has lost 1007 and 1008, and 5001 and 5002 have come since."""
    record.fork(log(*range(1003, 1007)), AFTER_FAILOVER, 1006)
    record.read(log(5001, 5002), 1003)
    assert not record.faults
    return record


def answer(seqs: Sequence[int], cursor: int, gap: tuple[str, int] | None = None) -> Answer:
    found: dict[str, object] = {"messages": [each.shown() for each in log(*seqs)], "cursor": str(cursor)}
    if gap:
        found["gap"] = {"reason": gap[0], "after": str(gap[1])}
    return Answer.parse(json.dumps(found).encode())


A = Topics(["a/*"])
ALL = Topics(["**"])


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (Asked(ALL, 100, 1004), answer([1005, 1006, 1007, 1008], 1008)),
        (Asked(ALL, 2, 1004), answer([1005, 1006], 1006)),
        (Asked(A, 100, 1004), answer([1006, 1008], 1008)),
        (Asked(A, 100, 1004), answer([1006], 1007)),
        (Asked(A, 100, 1004), answer([], 1005)),
        (Asked(A, 100, 1004), answer([], 1004)),
        (Asked(ALL, 100, 0), answer([1003, 1004], 1004)),
        (Asked(ALL, 100, 1001), answer([1003], 1003, ("retention", 1001))),
        (Asked(ALL, 100, 1001), answer([1002, 1003], 1003)),  # from memory, when the table no longer has it
        (Asked(ALL, 100), answer([1007, 1008], 1008)),
        (Asked(A, 100, last=2), answer([1006, 1008], 1008)),
        (Asked(A, 100, last=9), answer([1004, 1006, 1008], 1008)),
    ],
)
def test_right_answers_pass(record: Record, asked: Asked, got: Answer) -> None:
    assert judge(record, asked, got) is None


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        # a message is skipped: the first, one in the midst, the last; all
        (Asked(ALL, 100, 1004), answer([1006, 1007, 1008], 1008)),
        (Asked(ALL, 100, 1004), answer([1005, 1007, 1008], 1008)),
        (Asked(ALL, 100, 1004), answer([1005, 1006, 1007], 1008)),
        (Asked(ALL, 100, 1004), answer([], 1008)),
        # one comes twice, out of order, is of another topic, was there before, is from nowhere
        (Asked(ALL, 100, 1004), answer([1005, 1005, 1006], 1006)),
        (Asked(ALL, 100, 1004), answer([1006, 1005], 1006)),
        (Asked(A, 100, 1004), answer([1005, 1006], 1006)),
        (Asked(ALL, 100, 1004), answer([1004, 1005], 1005)),
        (Asked(ALL, 100, 1007), answer([1008, 1009], 1009)),
        # more than the limit; a cursor behind the last message, behind the cursor asked for, ahead of the log
        (Asked(ALL, 1, 1004), answer([1005, 1006], 1006)),
        (Asked(ALL, 100, 1004), answer([1005, 1006], 1005)),
        (Asked(ALL, 100, 1004), answer([], 1003)),
        (Asked(A, 100, 1008), answer([], 1009)),
        # what retention took is not told; it is told and nothing was taken, or more is skipped than was taken
        (Asked(ALL, 100, 1001), answer([1003], 1003)),
        (Asked(ALL, 100, 1003), answer([1004], 1004, ("retention", 1003))),
        (Asked(Topics(["c"]), 100, 1001), answer([], 1008, ("retention", 1001))),
        (Asked(ALL, 100, 1001), answer([1004], 1004, ("retention", 1001))),
        (Asked(ALL, 100, 0), answer([1004], 1004)),
        # a reset without a reason, a gap ahead of the cursor, a gap where none can be
        (Asked(ALL, 100, 1004), answer([1005], 1005, ("reset", 1004))),
        (Asked(ALL, 100, 1001), answer([1003], 1003, ("retention", 1002))),
        (Asked(ALL, 100), answer([1008], 1008, ("retention", 1001))),
        (Asked(ALL, 100, 0), answer([1003], 1003, ("retention", 0))),
        # too few of the last, or a hole in them
        (Asked(A, 100, last=2), answer([1008], 1009)),
        (Asked(ALL, 100, last=3), answer([1006, 1008], 1008)),
    ],
)
def test_wrong_answers_do_not(record: Record, asked: Asked, got: Answer) -> None:
    assert judge(record, asked, got)


def test_what_is_shown_must_be_what_is_stored(record: Record) -> None:
    asked = Asked(ALL, 100, 1007)
    right = answer([1008], 1008)
    assert judge(record, asked, right) is None
    for name, value in (("data", "x"), ("topic", "a/2"), ("time", "2026-01-01T00:00:00.000000Z"), ("title", "x")):
        assert judge(record, asked, Answer([{**right.messages[0], name: value}], 1008))


@pytest.mark.parametrize("text", ["01001", "+1001", "", "1001.0"])
def test_a_cursor_is_a_decimal_number(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Answer.parse(json.dumps({"messages": [], "cursor": text}).encode())


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (Asked(ALL, 100, 1005), answer([1006, 5001, 5002], 5002)),
        (Asked(ALL, 100, 1008), answer([5001], 5001, ("reset", 1006))),
        (Asked(ALL, 100, 1008), answer([1003, 1004], 1004, ("reset", 0))),
        # by a server that has not noticed yet
        (Asked(ALL, 100, 1005), answer([1006, 1007], 1007)),
        (Asked(ALL, 100, 1008), answer([], 1008)),
    ],
)
def test_right_answers_after_a_fail_over_pass(forked: Record, asked: Asked, got: Answer) -> None:
    assert judge(forked, asked, got) is None


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (Asked(ALL, 100, 1008), answer([5001], 5001)),  # the client has seen what was lost, and is not told
        (Asked(A, 100, 1008), answer([], 5001)),
        (Asked(ALL, 100, 1005), answer([1006, 1007, 1008, 5001], 5001)),  # two lives in one answer
        (Asked(ALL, 100, 1005), answer([5001], 5001)),
        (Asked(ALL, 100, 1008), answer([5002], 5002, ("reset", 1006))),
        (Asked(ALL, 100, 1008), answer([5001], 5001, ("reset", 1008))),  # `after` is not sure
        (Asked(ALL, 100, 1005), answer([1006, 5001], 5001, ("reset", 1005))),
        (Asked(ALL, 100, 1008), answer([], 1009)),
    ],
)
def test_wrong_answers_after_a_fail_over_do_not(forked: Record, asked: Asked, got: Answer) -> None:
    assert judge(forked, asked, got)


def test_a_log_that_breaks_its_promises_is_seen(record: Record) -> None:
    late, changed, earlier = row(1010, "a/1"), row(1008, "a/1", "other"), row(1012, "a/1")
    record.read([row(1011, "b")], 1003)
    record.read([late, row(1011, "b")], 1003)
    assert "below the head" in record.faults.pop()
    record.read([changed, row(1011, "b")], 1003)
    assert "issued twice" in record.faults.pop()
    record.read([row(1007, "b"), row(1011, "b")], 1003)
    assert "vanished" in record.faults.pop()
    record.read([Row(earlier.seq, earlier.topic, BEGAN, earlier.body, None, None)], 1003)
    assert "backwards" in record.faults.pop()
    assert not record.faults


def test_a_crash_may_take_only_what_nobody_was_told(record: Record) -> None:
    record.settle(log(*range(1003, 1008)), 1007)
    assert not record.faults
    assert record.life.head == 1007
    record.settle(log(*range(1003, 1007)), 1007)
    assert "a crash took" in record.faults.pop()


def test_a_fail_over_must_not_issue_ids_again(record: Record) -> None:
    record.fork([*log(1003, 1004), row(1005, "b", "other")], 5000, 1004)
    assert "issued twice" in record.faults[0]
    record.faults.clear()
    record.fork(log(1003, 1004), 1008, 1004)
    assert record.faults


@pytest.mark.parametrize(
    ("fate", "tokens", "ids", "floor", "fault"),
    [
        ("stored", [1003], [1003], 0, None),
        ("stored", [1003, 1004], [1003, 1004], 0, None),
        ("unknown", [7], [], 0, None),
        ("unknown", [1003], [], 0, None),
        ("refused", [7], [], 0, None),
        ("committed", [1003, 1004], [], 0, None),
        ("stored", [1003], [1004], 0, "is not there"),
        ("stored", [7], [7], 0, "is not there"),
        ("stored", [1003], [1003], 1003, "stored below"),
        ("refused", [1003], [], 0, "refused"),
        ("committed", [7], [], 0, "committed and is not there"),
        ("unknown", [1003, 7], [], 0, "only 1 of 2"),
        ("unknown", [1004, 1003], [], 0, "out of order"),
        ("taken back", [7], [], 0, None),
        ("taken back", [1003], [], 0, "was taken back, and is there"),
    ],
)
def test_what_publishers_were_told_is_compared(
    record: Record, fate: Fate, tokens: list[int], ids: list[int], floor: int, fault: str | None
) -> None:
    ledger = Ledger(record)
    messages = [Message(token, log(token)[0].topic, log(token)[0].body) for token in tokens]
    ledger.add("publish", messages, fate, floor, ids)
    others = [Message(seq, log(seq)[0].topic, log(seq)[0].body) for seq in range(1001, 1009) if seq not in tokens]
    for other in others:
        ledger.add("publish", [other], "unknown", 0)
    faults = ledger.check()
    assert len(faults) == (fault is not None), faults
    assert fault is None or fault in faults[0]


def test_a_message_by_nobody_and_one_stored_twice_are_seen(record: Record) -> None:
    ledger = Ledger(record)
    for each in log(*range(1001, 1008)):
        ledger.add("publish", [Message(each.seq - 1000 + 1000, each.topic, each.body)], "unknown", 0)
    assert ["published by nobody" in fault for fault in ledger.check()] == [True]
    again = log(1008)[0]
    record.read([again, Row(1009, again.topic, again.time, again.body, None, None)], 1003)
    ledger.add("publish", [Message(1008, again.topic, again.body)], "unknown", 0)
    assert ["stored twice" in fault for fault in ledger.check()] == [True]


@pytest.mark.parametrize(
    ("fate", "seconds", "fault"),
    [
        ("committed", 0, None),
        ("committed", 0.000001, "before"),
        ("unknown", -1, None),
        ("unknown", 1, "before"),
    ],
)
def test_nothing_is_published_before_its_time(record: Record, fate: Fate, seconds: float, fault: str | None) -> None:
    ledger = Ledger(record)
    for each in log(*range(1001, 1009)):
        ledger.add("publish", [Message(each.seq, each.topic, each.body)], "unknown", 0)
    [last] = ledger.entries.pop().messages
    last.not_before = log(last.token)[0].time + timedelta(seconds=seconds)
    ledger.add("later", [last], fate, 0)
    faults = ledger.check()
    assert len(faults) == (fault is not None), faults
    assert fault is None or fault in faults[0]


@pytest.mark.parametrize(("asked", "faults"), [(-1, 0), (1, 1)])
def test_a_fail_over_may_lose_what_was_taken_back_before_it(record: Record, asked: float, faults: int) -> None:
    ledger = Ledger(record)
    for each in log(*range(1001, 1008)):
        ledger.add("publish", [Message(each.seq, each.topic, each.body)], "unknown", 0)
    body = log(1008)[0].body
    ledger.went_on_with([body])
    ledger.add("later", [Message(1008, "a/1", body)], "taken back", 0, asked=ledger.came_back[1008] + asked)
    assert len(ledger.check()) == faults
