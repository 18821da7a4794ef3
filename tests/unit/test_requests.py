"""What a poll's request means."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.core.errors import BadRequest, InvalidCursor
from notifier.core.polls import After, Last, LastEach, Latest, Since
from notifier.core.topics import TopicList
from notifier.wire.requests import parse_poll, parse_query

TOPICS = TopicList(["t"])
AT_FIVE = datetime(2026, 11, 20, 17, 0, 0, tzinfo=UTC)


def poll(query="", last_event_ids=(), prefers=()):
    return parse_poll(TOPICS, query, last_event_ids, prefers)


# Where to begin


@pytest.mark.parametrize(
    ("query", "begin"),
    [
        ("", Latest()),
        ("after=latest", Latest()),
        ("after=earliest", After(0)),
        ("after=0", After(0)),
        ("after=41", After(41)),
        ("after=%34%31", After(41)),
        ("since=30s", Since(timedelta(seconds=30))),
        ("since=10m", Since(timedelta(minutes=10))),
        ("since=2h", Since(timedelta(hours=2))),
        ("since=7d", Since(timedelta(days=7))),
        ("since=0s", Since(timedelta(0))),
        ("since=999999999d", Since(timedelta(days=36500))),
        ("since=2026-11-20T17:00:00Z", Since(AT_FIVE)),
        ("since=2026-11-20t17:00:00z", Since(AT_FIVE)),
        ("since=2026-11-20T19:00:00%2B02:00", Since(AT_FIVE)),
        ("since=2026-11-20T19:00:00+02:00", Since(AT_FIVE)),  # the + of a query is a space
        ("since=2026-11-20T19:00:00%2002:00", Since(AT_FIVE)),
        ("since=2026-11-20T12:00:00-05:00", Since(AT_FIVE)),
        ("since=2026-11-20T17:00:00.5Z", Since(AT_FIVE + timedelta(milliseconds=500))),
        ("since=2026-11-20T17:00:00.123456789Z", Since(AT_FIVE + timedelta(microseconds=123456))),
        ("last=1", Last(1)),
        ("last=1000", Last(1000)),
        ("last_each=1", LastEach(1)),
        ("last_each=10", LastEach(10)),
    ],
)
def test_a_poll_begins_where_its_query_says(query, begin):
    assert poll(query).begin == begin


@pytest.mark.rule("S-33")
def test_headers_are_shown_where_they_are_asked_for():
    assert [poll(query).headers for query in ("headers=1", "headers=0", "")] == [True, False, False]
    for malformed in ("headers=", "headers=yes", "headers=1&headers=1"):
        with pytest.raises(BadRequest, match="headers"):
            poll(malformed)


def test_of_several_beginnings_the_first_in_the_table_counts():
    assert poll("last=5&since=1h&after=7", ["9"]).begin == After(9)
    assert poll("last=5&since=1h&after=7").begin == After(7)
    assert poll("last=5&since=1h&after=latest").begin == Latest()
    assert poll("last=5&since=1h").begin == Since(timedelta(hours=1))
    assert poll("last_each=1&last=5").begin == Last(5)


def test_the_last_of_each_come_in_one_answer_unless_a_limit_is_given():
    assert poll("last_each=1").limit == 1000
    assert poll("last_each=1&limit=20").limit == 20
    assert poll("last_each=1&last=5").limit == poll().limit == 100


@pytest.mark.parametrize(
    ("value", "begin"), [("latest", Latest()), ("earliest", After(0)), ("0", After(0)), ("41", After(41))]
)
def test_the_header_takes_what_after_takes(value, begin):
    assert poll("", [value]).begin == begin


@pytest.mark.parametrize(
    ("query", "because"),
    [
        ("after=", "is not a cursor"),
        ("after=041", "is not a cursor"),
        ("after=-1", "is not a cursor"),
        ("after=newest", "is not a cursor"),
        ("after=LATEST", "is not a cursor"),
        ("after=9999999999999999999", "is not a cursor"),
        ("since=", "since is a span such as 30s"),
        ("since=30", "since is a span"),
        ("since=30S", "since is a span"),
        ("since=1.5h", "since is a span"),
        ("since=-5m", "since is a span"),
        ("since=1w", "since is a span"),
        ("since=1h30m", "since is a span"),
        ("since=1234567890s", "since is a span"),
        ("since=%D9%A3s", "since is a span"),
        ("since=2026-11-20", "since is a span"),
        ("since=2026-11-20T17:00:00", "since is a span"),  # in which time zone?
        ("since=2026-11-20T17:00Z", "since is a span"),
        ("since=2026-02-30T17:00:00Z", "since is a span"),
        ("since=2026-11-20T25:00:00Z", "since is a span"),
        ("since=2026-11-20T17:00:00%2B25:00", "since is a span"),
        ("since=0000-01-01T00:00:00Z", "since is a span"),
        ("since=0001-01-01T00:00:00%2B14:00", "since is a span"),  # before the year 1 in UTC
        ("since=9999-12-31T23:59:59-14:00", "since is a span"),
        ("since=1700000000", "since is a span"),
        ("last=", "last is a number from 1 to 1000"),
        ("last=0", "last is a number from 1 to 1000"),
        ("last=1001", "last is a number"),
        ("last=01", "last is a number"),
        ("last=-1", "last is a number"),
        ("last=all", "last is a number"),
        ("last_each=0", "last_each is a number from 1 to 10"),
        ("last_each=11", "last_each is a number from 1 to 10"),
        ("last_each=1&last_each=1", "last_each is given twice"),
        ("limit=0", "limit is a number from 1 to 1000"),
        ("limit=1001", "limit is a number"),
        ("limit=1.0", "limit is a number"),
        ("limit=", "limit is a number"),
        ("wait=", "wait is a number of seconds, such as 20 or 0.5"),
        ("wait=-1", "wait is a number"),
        ("wait=.5", "wait is a number"),
        ("wait=5.", "wait is a number"),
        ("wait=1e3", "wait is a number"),
        ("wait=5s", "wait is a number"),
        ("wait=inf", "wait is a number"),
        ("wait=nan", "wait is a number"),
        ("wait=0x10", "wait is a number"),
        ("wait=1_0", "wait is a number"),
        ("after=1&after=1", "The parameter after is given twice"),
        ("after=1&%61fter=2", "The parameter after is given twice"),
        ("since=1s&since=2s", "The parameter since is given twice"),
        ("last=1&last=1", "The parameter last is given twice"),
        ("wait=1&wait=1", "The parameter wait is given twice"),
        ("limit=1&limit=2", "The parameter limit is given twice"),
        ("after=1&last=none", "last is a number"),  # also where another beginning counts
        ("after=%FF", "after is not percent-encoded UTF-8"),
    ],
)
def test_a_malformed_query_is_refused_by_name(query, because):
    with pytest.raises(BadRequest, match=because):
        poll(query)


@pytest.mark.parametrize("value", ["", "041", "newest", " 41", "41, 42"])
def test_a_malformed_header_is_refused(value):
    with pytest.raises(InvalidCursor):
        poll("", [value])


def test_a_header_given_twice_is_refused():
    with pytest.raises(BadRequest, match="Last-Event-ID is given twice"):
        poll("", ["1", "1"])


def test_unknown_parameters_are_ignored_also_twice():
    assert poll("x=1&x=2&After=9&_=17&token") == poll("")


@settings(deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=2), st.lists(st.text(max_size=20), max_size=2))
def test_whatever_comes_a_poll_is_understood_or_refused(query, last_event_ids, prefers):
    try:
        asked = poll(query, last_event_ids, prefers)
    except BadRequest:
        return
    assert asked.wait_s is None or 0 <= asked.wait_s <= 28
    assert 1 <= asked.limit <= 1000


# How long to wait, how many to take


@pytest.mark.parametrize(
    ("query", "wait_s"),
    [
        ("", None),
        ("wait=0", 0),
        ("wait=0.0", 0),
        ("wait=0.25", 0.25),
        ("wait=28", 28),
        ("wait=28.5", 28),
        ("wait=999999999", 28),
    ],
)
def test_a_wait_is_capped_at_28_seconds(query, wait_s):
    asked = poll(query)
    assert asked.wait_s == wait_s
    assert not asked.preferred


@pytest.mark.parametrize(
    ("prefers", "wait_s"),
    [
        (["wait=10"], 10),
        (["Wait = 10"], 10),
        (['wait="10"'], 10),
        (["respond-async, wait=10; foo=bar"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=10", "wait=20"], 10),  # RFC 7240: the first counts
        (["wait=10, wait=20"], 10),
        (["wait=100"], 28),
        (["wait=0"], 0),
    ],
)
def test_a_preferred_wait_is_taken_from_the_header(prefers, wait_s):
    asked = poll("", prefers=prefers)
    assert asked.wait_s == wait_s
    assert asked.preferred


@pytest.mark.parametrize(
    "prefers", [[], [""], ["wait"], ["wait="], ["wait=soon"], ["wait=-1"], ["wait=1.5"], ["await=5"], [",;="]]
)
def test_a_preference_that_is_malformed_is_ignored(prefers):
    asked = poll("", prefers=prefers)
    assert asked.wait_s is None
    assert not asked.preferred


def test_the_parameter_counts_before_the_preference():
    asked = poll("wait=5", prefers=["wait=10"])
    assert asked.wait_s == 5
    assert not asked.preferred


def test_a_poll_takes_a_hundred_messages_unless_it_says_otherwise():
    assert poll().limit == 100
    assert poll("limit=1").limit == 1
    assert poll("limit=1000").limit == 1000


def test_only_the_named_parameters_of_a_query_are_read():
    assert parse_query("title=a+b&click=%C3%A9&other=1&title2=x", ("title", "click")) == {
        "title": "a b",
        "click": "\u00e9",
    }
    assert parse_query("title=&click", ("title", "click")) == {"title": "", "click": ""}


def test_names_and_values_are_decoded_once():
    assert poll("%61fter=%34%31").begin == After(41)
    assert poll("%2561fter=x&ignored=%FF&%FF=1&%=2").begin == Latest()
    with pytest.raises(BadRequest, match="given twice"):
        poll("after=1&%61%66%74%65%72=2")


@pytest.mark.rule("S-9")
def test_a_query_has_a_bounded_number_of_parameters():
    assert poll("&".join(["after=1", *(f"other{n}" for n in range(999))])).begin == After(1)
    with pytest.raises(BadRequest, match="at most 1000"):
        poll("&" * 1000)


def test_preferences_beyond_a_bounded_number_are_not_looked_at():
    assert poll("", (), ["," * 99 + "wait=1"]).wait_s == 1
    assert poll("", (), ["," * 100 + "wait=1"]).wait_s is None
