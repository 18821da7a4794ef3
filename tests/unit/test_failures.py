"""Failed authentications: what is logged, and what is slowed down."""

import asyncio
import logging

import pytest

from notifier.access import failures
from notifier.access.failures import LINE_S, MAX_LINES, Failures, Refusals
from notifier.core.errors import BadSignature, EndedToken, InvalidToken, Unauthorized
from notifier.core.rates import Rate

WRONG = InvalidToken("a sentence that quotes nk_id_secret")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.name == failures.__name__]
    caplog.clear()
    return said


async def test_an_address_that_fails_too_often_is_told_to_slow_down_and_its_neighbours_are_not(clock: Clock) -> None:
    counted = Failures(Rate(2, 10), clock)
    answers = [counted.count("10.0.0.1", WRONG) for _ in range(3)]
    assert answers[:2] == [None, None]
    assert answers[2]
    assert answers[2].retry_after_s == 5
    assert counted.count("10.0.0.2", WRONG) is None
    clock.now += 4.5
    again = counted.count("10.0.0.1", Unauthorized("none"))
    assert again
    assert again.retry_after_s == 1  # never 0
    clock.now += 0.5
    assert counted.count("10.0.0.1", WRONG) is None
    assert counted.reasons == {"a wrong credential": 5, "no credential": 1}


async def test_only_what_may_be_a_guess_is_slowed_down(clock: Clock) -> None:
    counted = Failures(Rate(1, 3600), clock)
    for error in (EndedToken("expired"), BadSignature("not signed")):
        assert [counted.count("10.0.0.1", error) for _ in range(5)] == [None] * 5
    assert counted.count("10.0.0.1", WRONG) is None
    assert counted.count("10.0.0.1", WRONG) is not None


async def test_without_a_rate_none_is_slowed_down(clock: Clock) -> None:
    counted = Failures(None, clock)
    assert [counted.count("10.0.0.1", WRONG) for _ in range(1000)] == [None] * 1000


async def test_each_address_has_a_line_a_minute_and_the_rest_is_told_in_one(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counted = Failures(None, clock)
    for _ in range(3):
        counted.count("10.0.0.1", WRONG)
        counted.count("10.0.0.2", Unauthorized("none"))
    assert lines(caplog) == ["refused 10.0.0.1: a wrong credential", "refused 10.0.0.2: no credential"]
    clock.now += LINE_S - 0.1
    counted.count("10.0.0.1", WRONG)
    assert lines(caplog) == []
    clock.now += 0.1
    counted.count("10.0.0.1", WRONG)
    assert lines(caplog) == ["refused 10.0.0.1: a wrong credential"]
    counted.tell()
    assert lines(caplog) == ["refused 5 more that have no line: a wrong credential (3), no credential (2)"]
    counted.tell()
    assert lines(caplog) == []


async def test_all_addresses_together_have_a_bounded_number_of_lines(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counted = Failures(Rate(1, 1), clock)
    for number in range(5000):
        counted.count(f"10.0.{number // 250}.{number % 250}", WRONG)
    assert len(lines(caplog)) == MAX_LINES
    assert len(counted._lines._lines) == MAX_LINES
    counted.tell()
    assert lines(caplog) == [
        f"refused {5000 - MAX_LINES} more that have no line: a wrong credential ({5000 - MAX_LINES})"
    ]
    clock.now += LINE_S
    for _ in range(2):
        counted.count("10.0.0.1", WRONG)
    assert len(lines(caplog)) == 1
    assert len(counted._lines._lines) == 1


async def test_what_has_no_line_is_told_after_a_while_if_nothing_follows(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "LINE_S", 0.001)
    caplog.set_level(logging.INFO)
    counted = Failures(None, clock)
    for _ in range(2):
        counted.count("10.0.0.1", WRONG)
    async with asyncio.timeout(20):
        while counted._lines._left_out:
            await asyncio.sleep(0.001)
    assert lines(caplog)[1:] == ["refused 1 more that have no line: a wrong credential (1)"]


async def test_no_line_has_anything_of_the_error(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    counted = Failures(Rate(1, 1), clock)
    told = [counted.count("10.0.0.1", WRONG) for _ in range(3)]
    counted.tell()
    assert "nk_" not in caplog.text
    assert not any("nk_" in str(error) for error in told)


@pytest.mark.rule("W-11")
def test_each_source_and_reason_has_a_count_and_a_line_whatever_address_it_comes_from(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refused = Refusals(clock)

    async def count() -> None:
        for address in ("10.0.0.1", "10.0.0.2"):
            refused.count("github", address, "a bad signature", known=True)
            refused.count("stripe", address, "a bad signature", known=True)
        refused.count("stripe", "10.0.0.1", "an old timestamp", known=True)
        refused.count("no-such", "10.0.0.1", "not_found", known=False)
        refused.count("nor-this", "10.0.0.1", "not_found", known=False)
        refused.tell()

    asyncio.run(count())
    assert caplog.messages == [
        "refused a webhook for github from 10.0.0.1: a bad signature",
        "refused a webhook for stripe from 10.0.0.1: a bad signature",
        "refused a webhook for stripe from 10.0.0.1: an old timestamp",
        "refused a webhook for no-such from 10.0.0.1: not_found",
        "refused a webhook for nor-this from 10.0.0.1: not_found",
        "refused 2 more that have no line: a bad signature (2)",
    ]
    assert refused.reasons == {
        ("github", "a bad signature"): 2,
        ("stripe", "a bad signature"): 2,
        ("stripe", "an old timestamp"): 1,
        ("", "not_found"): 2,
    }
