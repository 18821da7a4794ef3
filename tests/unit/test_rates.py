"""Rates: the generic cell rate algorithm."""

from hypothesis import given
from hypothesis import strategies as st

from notifier.core.rates import Meter, Rate


def test_a_burst_conforms_and_then_as_many_as_the_rate_says() -> None:
    meter = Meter(Rate(3, 6))
    assert [meter.hit("a", 100) for _ in range(5)] == [0, 0, 0, 2, 2]
    assert meter.hit("a", 101.5) == 0.5
    assert [meter.hit("a", 102) for _ in range(2)] == [0, 2]
    assert [meter.hit("a", 1000) for _ in range(4)] == [0, 0, 0, 2]


def test_keys_are_counted_apart() -> None:
    meter = Meter(Rate(1, 1))
    assert [meter.hit(key, 0) for key in ("a", "b", "a", "b")] == [0, 0, 1, 1]


def test_several_hits_conform_together_or_not_at_all() -> None:
    meter = Meter(Rate(10, 10))
    assert meter.hit("a", 0, 8) == 0
    assert meter.hit("a", 0, 3) == 1
    assert meter.hit("a", 0, 2) == 0


def test_more_than_a_burst_conform_when_nothing_was_hit_and_are_paid_for_afterwards() -> None:
    meter = Meter(Rate(10, 10))
    assert meter.hit("a", 0, 25) == 0
    assert meter.hit("a", 0) == 16
    assert meter.hit("a", 16) == 0
    assert meter.hit("a", 16, 25) == 10


def test_asking_counts_nothing() -> None:
    meter = Meter(Rate(1, 1))
    assert [meter.wait("a", 0) for _ in range(3)] == [0, 0, 0]
    assert len(meter) == 0
    meter.hit("a", 0)
    assert meter.wait("a", 0.25) == 0.75


def test_beyond_the_bound_the_key_used_longest_ago_is_forgotten() -> None:
    meter = Meter(Rate(1, 100), max_keys=2)
    for key in ("a", "b", "a", "c"):
        meter.hit(key, 0)
    assert len(meter) == 2
    assert meter.wait("a", 0)
    assert not meter.wait("b", 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), max_size=40), st.integers(1, 9), st.integers(1, 9))
def test_no_stretch_of_time_has_more_hits_than_burst_and_rate_allow(
    steps: list[tuple[int, int]], hits: int, seconds: int
) -> None:
    meter = Meter(Rate(hits, seconds))
    now, passed = 0, []
    for pause, number in steps:
        now += pause
        if meter.hit("a", now, min(number, hits)) == 0:
            passed.append((now, min(number, hits)))
        else:  # what it says is exact
            assert meter.wait("a", now + meter.wait("a", now, min(number, hits)) + 1e-9, min(number, hits)) == 0
    for begin in range(len(passed)):
        for end in range(begin, len(passed)):
            counted = sum(number for _, number in passed[begin : end + 1])
            assert counted <= hits + (passed[end][0] - passed[begin][0]) * hits / seconds + 1e-6
