"""How much a subscription asks for, how long it waits, and when it tries again: the rules alone, without a server."""

import pytest

from notifier.client.pace import Backoff, Limit, Wait, patience_s


def answers(limit, line_bytes_per_s, message_bytes, backlog):
    """What is asked for until the backlog is read, and how long each answer takes."""
    read = []
    while backlog:
        asked = limit.now
        count = min(asked, backlog)
        took_s = count * message_bytes / line_bytes_per_s
        read.append((asked, took_s))
        backlog -= count
        limit.arrived(count, took_s)
    return read


@pytest.mark.rule("C-12")
def test_a_fast_line_soon_gets_as_much_as_it_may():
    assert [asked for asked, _ in answers(Limit(100), 10e6, 4000, 500)] == [10, 20, 40, 80, 100, 100, 100, 100]
    assert [asked for asked, _ in answers(Limit(1000), 10e6, 40, 3000)][-3:] == [640, 1000, 1000]
    assert {asked for asked, _ in answers(Limit(3), 10e6, 4000, 30)} == {3}


@pytest.mark.rule("C-12")
def test_a_slow_line_gets_pieces_that_it_can_carry():
    read = answers(Limit(100), 24_000, 40_000, 100)
    assert max(took_s for _, took_s in read) < 20
    assert all(took_s < 6 for _, took_s in read[2:])


@pytest.mark.rule("C-12")
def test_what_breaks_off_is_halved_down_to_one_message():
    limit = Limit(100)
    seen = []
    for _ in range(5):
        seen.append(limit.now)
        limit.broke_off()
    assert seen == [10, 5, 2, 1, 1]


@pytest.mark.rule("C-12")
def test_answers_that_were_not_full_tell_nothing_about_the_line():
    limit = Limit(100)
    for count in (0, 1, 9):
        limit.arrived(count, 0.001)
    assert limit.now == 10


@pytest.mark.rule("C-13")
def test_one_cut_poll_is_normal_and_changes_nothing():
    wait = Wait(None)
    for hour in range(3):
        assert wait.cut(14.0, 3600.0 * hour)
        wait.answered()
        assert wait.seconds(3600.0 * hour) is None


@pytest.mark.rule("C-13")
@pytest.mark.parametrize(("gateway_s", "asked_s"), [(15, None), (4, None), (2, None), (15, 20.0), (8, 28.0)])
def test_after_two_cuts_in_a_row_polls_end_before_the_gateway_ends_them(gateway_s, asked_s):
    wait = Wait(asked_s)
    assert wait.cut(gateway_s, 100.0)
    assert wait.cut(gateway_s, 200.0)
    assert 1 <= wait.seconds(200.0) < gateway_s


@pytest.mark.rule("C-13")
def test_where_each_cut_takes_twice_as_long_as_the_gateway_lets_it_the_wait_is_found_too():
    wait = Wait(None)
    wait.cut(30.0, 0.0)  # a gateway of 15 s, asked twice by the HTTP library
    wait.cut(30.0, 30.0)
    assert wait.seconds(30.0) < 15


@pytest.mark.rule("C-13")
def test_a_way_that_swallows_answers_halves_the_wait_and_is_told():
    wait = Wait(None)
    assert not wait.cut(patience_s(None), 0.0)
    assert wait.seconds(0.0) == 12.5
    assert not wait.cut(patience_s(12.5), 30.0)
    assert wait.seconds(30.0) == 6.25


@pytest.mark.rule("C-13")
def test_cuts_that_do_not_end_are_told():
    wait = Wait(None)
    assert [wait.cut(15.0, 15.0 * n) for n in range(5)] == [True, True, False, False, False]
    assert wait.seconds(75.0) >= 1


@pytest.mark.rule("C-13")
def test_a_poll_that_ends_at_once_was_not_cut_for_its_wait():
    wait = Wait(None)
    assert not any(wait.cut(0.2, n) for n in range(3))
    assert wait.seconds(3.0) is None


@pytest.mark.rule("C-13")
def test_after_a_while_the_full_wait_is_tried_again():
    wait = Wait(20.0)
    wait.cut(4.0, 0.0)
    wait.cut(4.0, 4.0)
    assert wait.seconds(600.0) == 3.0
    assert wait.seconds(605.0) == 20.0


def bounds(nobody, spread_s, monkeypatch):
    """The bounds of the pauses of an outage in which each attempt comes `spread_s` after the one before."""
    monkeypatch.setattr("notifier.client.pace.random.uniform", lambda low, high: high)
    backoff = Backoff()
    return [backoff.delay_s(n * spread_s, None, nobody=nobody) for n in range(10)]


@pytest.mark.rule("C-2")
def test_a_server_that_refuses_is_spared_more_and_more(monkeypatch):
    assert bounds(False, 10, monkeypatch) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


@pytest.mark.rule("C-2")
def test_a_server_that_is_back_after_a_minute_is_found_within_seconds(monkeypatch):
    assert bounds(True, 10, monkeypatch) == [0.5, 1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert bounds(True, 60, monkeypatch) == [0.5, 1, 2, 3, 3, 16, 30, 30, 30, 30]


@pytest.mark.rule("C-2")
def test_pauses_are_random_and_never_shorter_than_the_server_asked_for():
    backoff = Backoff()
    delays = [(backoff.succeeded(), backoff.delay_s(0, 7, nobody=False))[1] for _ in range(200)]
    assert 7 <= min(delays) < 7.1 < 7.4 < max(delays) <= 7.5


def test_success_begins_anew():
    backoff = Backoff()
    for n in range(8):
        backoff.delay_s(n, None, nobody=True)
    assert backoff.failing
    backoff.succeeded()
    assert not backoff.failing
    assert backoff.delay_s(1000.0, None, nobody=True) <= 0.5
