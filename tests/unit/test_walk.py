"""Where the pump looks in the outbox: nothing that commits late is passed over, and little is stepped over twice."""

import itertools
from datetime import UTC, datetime, timedelta

from notifier.postgres.pump import (
    AGED_S,
    BEGINNING,
    DUE_AGAIN_S,
    DUE_SCAN_S,
    FAST_S,
    LATE,
    MAX_RANGES,
    MIN_SPAN,
    PACE_S,
    SCAN_S,
    SLOW_S,
    SPAN,
    Due,
    Walk,
    adapted,
)

AT = datetime(2026, 11, 26, tzinfo=UTC)


def row(reached: int, head: int, *running: int, ended: int = 900, following: int = 900, moved: int = 0) -> dict:
    """What a look has found: `running` below `ended`, and all from `ended` to before `following`."""
    return {
        "reached": reached,
        "head": head,
        "moved": moved,
        "running": list(running),
        "ended_xid": ended,
        "next_xid": following,
    }


class Clock:
    """A walk, with longer than AGED_S between its looks."""

    def __init__(self) -> None:
        self.walk = Walk(0.0)
        self._times = itertools.count()

    def look(self, found: dict) -> tuple[int, dict[int, int]]:
        """Where the look started that has found this, with the marks of what was running."""
        now = next(self._times) * AGED_S * 1.01
        at, _, firsts, lasts, marks = self.walk.begin(now)
        self.walk.end(found, now, SLOW_S)
        ranges = zip(firsts, lasts, marks, strict=True)
        return at, {xid: mark for first, last, mark in ranges for xid in range(first, last)}


def test_the_walk_goes_up_in_pieces_and_starts_again_from_a_moment_ago() -> None:
    clock = Clock()
    pieces = [clock.look(row(reached, 25_000))[0] for reached in (10_000, 20_000, 25_000)]
    assert pieces == [0, 10_000, 20_000]
    assert clock.look(row(25_010, 25_010))[0] == 0  # when it came by there, it did not know yet what was drawn when
    assert clock.look(row(25_020, 25_020))[0] == 25_000
    assert clock.look(row(25_020, 25_020))[0] == 25_010


def test_ids_that_were_just_drawn_are_checked_again() -> None:
    walk = Walk(0.0)
    for step in range(10):
        now = step * AGED_S * 0.251
        at, *_ = walk.begin(now)
        walk.end(row(step * 10, step * 10), now, 0)
        assert at == max(0, step - 5) * 10


def test_a_running_transaction_keeps_the_mark_below_which_it_has_nothing() -> None:
    clock = Clock()
    for newest in (10, 20, 30, 40):
        clock.look(row(newest, newest, ended=501, following=502))  # 501 runs; nothing above it has ended
    # 502 has got its number after the look that found 40, and so its first id after the one that found 30.
    clock.look(row(50, 50, ended=501, following=503))
    # 504 has ended, and so a snapshot lists what runs below.
    clock.look(row(60, 60, 501, 502, 503, ended=505, following=505))
    assert clock.look(row(70, 70, 502, ended=506, following=506)) == (50, {501: 0, 502: 30, 503: 40})
    # 501 and 503 have ended, and that look began at the lower of their marks.
    assert clock.look(row(80, 80, ended=506, following=507)) == (60, {502: 30})
    assert clock.look(row(90, 90, ended=506, following=507)) == (70, {506: 60})


def test_many_numbers_share_marks() -> None:
    clock = Clock()
    for newest in range(1, 1000):
        clock.look(row(newest, newest, ended=501, following=501 + newest))
    _, marks = clock.look(row(1000, 1000, ended=501, following=1501))
    assert len(clock.walk.running.marks()) <= MAX_RANGES
    assert sorted(marks) == list(range(501, 1500))
    assert all(mark <= max(0, xid - 502) for xid, mark in marks.items())


def test_a_check_that_was_cut_short_goes_on_where_it_stopped() -> None:
    clock = Clock()
    for newest in (10, 20, 30):
        clock.look(row(newest, newest, 501))
    clock.look(row(5, 40))
    assert clock.look(row(40, 40)) == (5, {})


def test_the_walk_returns_to_where_it_was_at_the_last_scan() -> None:
    walk = Walk(0.0)
    starts = []
    for second in range(8):
        for now in (second * SCAN_S, second * SCAN_S + 2 * AGED_S):
            starts.append(walk.begin(now)[0])
            walk.end(row(100 * second, 100 * second), now, 0)
    assert starts[-4:] == [400, 500, 500, 600]


def test_a_piece_takes_a_few_milliseconds() -> None:
    assert adapted(SPAN, row(0, 0), SLOW_S * 2) < SPAN
    assert adapted(MIN_SPAN, row(0, 0), SLOW_S * 2) == MIN_SPAN
    assert adapted(SPAN, row(0, 0), FAST_S / 2) > SPAN
    assert adapted(SPAN, row(0, 0, moved=1), FAST_S / 2) == SPAN  # that says nothing about stepping over rows
    span = SPAN
    for _ in range(100):
        span = adapted(span, row(0, 0), 0)
    assert span < 2**62


def due(moved: int | None = 0, reached: int | None = None, due_s: float | None = None, at: int = 1) -> dict:
    """What a look for what is due has found."""
    return {
        "moved": moved,
        "reached_at": None if reached is None else AT,
        "reached_id": reached,
        "looked_at": AT + timedelta(seconds=at),
        "due_s": due_s,
    }


def test_looks_for_what_is_due_go_on_in_steps_and_then_begin_anew() -> None:
    later = Due()
    assert later.begin(0.0) == BEGINNING
    later.end(due(1000, reached=7), 0.0, 0.01)
    assert later.at == 0.01
    assert later.begin(0.01) == (AT, 7)
    later.end(due(5), 0.01, 0.02)
    assert 0.02 + 0.8 * DUE_SCAN_S <= later.at <= 0.02 + DUE_SCAN_S
    assert later.begin(1.0) == BEGINNING


def test_the_next_look_is_when_something_is_due() -> None:
    later = Due()
    later.begin(0.0)
    later.end(due(due_s=0.1), 0.0, 0.0)
    assert later.at == 0.1
    later.notified(0.2)
    assert later.at == 0.1
    later.notified(0.05)
    assert later.at == 0.05
    later.begin(0.1)
    later.end(due(due_s=1e9), 0.1, 0.1)
    assert later.at <= 0.1 + DUE_SCAN_S
    # Clocks differ: a little early is not asked again at once.
    later.begin(0.2)
    later.end(due(due_s=-0.001), 0.2, 0.2)
    assert later.at == 0.2 + PACE_S


def test_beside_another_pump_it_looks_again_soon() -> None:
    later = Due()
    later.begin(0.0)
    later.end(due(None), 0.0, 0.0)
    assert later.at == DUE_AGAIN_S
    assert later.begin(DUE_AGAIN_S) == BEGINNING


def test_looks_that_take_long_begin_where_the_last_one_has_come_to_mostly() -> None:
    later = Due()
    whole = 0
    now = 0.0
    for step in range(1, 101):
        start = later.begin(now)
        whole += start == BEGINNING
        assert start in {BEGINNING, (AT + timedelta(seconds=step - 1) - LATE, 0)}
        began, now = now, now + (0.3 if start == BEGINNING else 0.001)
        later.end(due(at=step), began, now)
        now = later.at
    # A tenth of the time.
    assert now / 3.3 * 0.8 < whole < now / 3.3 * 1.2
