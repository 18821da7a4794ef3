"""How many messages came in each minute."""

from datetime import UTC, datetime, timedelta

import pytest

from notifier.core import counts as module
from notifier.core.counts import MINUTES, Counts, count
from notifier.core.messages import Message
from notifier.core.topics import TopicList
from notifier.core.window import Window

NOW = datetime(2026, 11, 26, 15, 30, 20, tzinfo=UTC)


def window_of(*messages: tuple[str, str], **bounds: int) -> Window:
    """With a message for each topic and time of today."""
    window = Window(**bounds)
    window.extend(
        Message(seq, topic, datetime.fromisoformat(f"2026-11-26T{time}+00:00"), b"1")
        for seq, (topic, time) in enumerate(messages, 1)
    )
    return window


def counted(window: Window, *items: str) -> tuple[Counts, int]:
    """And in how many steps."""
    counting = count(window, TopicList(items or ["**"]), NOW)
    steps = 1
    while True:
        try:
            next(counting)
        except StopIteration as done:
            return done.value, steps
        steps += 1


DAY = [
    ("a", "14:30:59.999999"),
    ("a", "14:31:00"),
    ("b", "14:31:59.999999"),
    ("a", "15:29:59.999999"),
    ("a/1", "15:30:00"),
    ("a", "15:30:19"),
    ("a", "15:32:00"),  # by the clock of the database, which is ahead
]


@pytest.mark.parametrize("step", [1, 2, 4000])
@pytest.mark.rule("S-48")
def test_each_minute_of_the_hour_has_its_messages(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(module, "STEP", step)
    for items, expected in (
        (("**",), {0: 2, 58: 1, 59: 3}),
        (("a",), {0: 1, 58: 1, 59: 2}),
        (("a/*", "b"), {0: 1, 59: 1}),
        (("c",), {}),
    ):
        found, _ = counted(window_of(*DAY), *items)
        assert found.counts == [expected.get(at, 0) for at in range(MINUTES)]
        assert found.end == datetime(2026, 11, 26, 15, 31, tzinfo=UTC)
        assert found.cursor == len(DAY)


@pytest.mark.rule("S-48")
def test_what_began_before_the_window_is_not_known_and_not_nothing() -> None:
    found, _ = counted(window_of(*DAY[1:]), "b")
    assert found.counts == [None] + [0] * 59  # the minute of the oldest may have had others
    found, _ = counted(window_of(*DAY[3:]))
    assert found.counts == [None] * 59 + [3]
    assert counted(Window())[0].counts == [None] * 60
    window = window_of(*DAY[3:])
    window.prepend([], 0, whole=True)
    assert counted(window)[0].counts == [0] * 58 + [1, 3]
    window = Window()
    window.prepend([], 0, whole=True)
    assert counted(window)[0].counts == [0] * 60


def test_a_step_is_short_and_sees_nothing_of_what_comes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 10)
    window = window_of(*[("a", "15:30:00")] * 25)
    window.prepend([], 0, whole=True)
    _, steps = counted(window)
    assert steps == 3
    counting = count(window, TopicList(["a"]), NOW)
    next(counting)
    window.extend([Message(99, "a", NOW, b"1")])
    window.reset(500)
    next(counting)
    with pytest.raises(StopIteration) as done:
        next(counting)
    assert sum(each or 0 for each in done.value.value.counts) == 25
    assert done.value.value.cursor == 25


def test_no_message_older_than_the_hour_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 1)
    _, steps = counted(window_of(*[("a", "12:00:00")] * 50, *DAY[1:]))
    assert steps == len(DAY[1:]) + 1
    assert NOW - timedelta(hours=1) > datetime(2026, 11, 26, 12, tzinfo=UTC)
