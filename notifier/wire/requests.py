"""Reading requests: the parameters of a query, and a poll."""

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta

from notifier.core.cursors import parse_cursor
from notifier.core.errors import BadRequest
from notifier.core.listing import Place
from notifier.core.percent import unquote
from notifier.core.polls import (
    DEFAULT_LIMIT,
    MAX_EACH,
    MAX_LIMIT,
    After,
    Before,
    Begin,
    Last,
    LastEach,
    Latest,
    Poll,
    Since,
)
from notifier.core.times import parse_time
from notifier.core.topics import TopicList, check_topic

# PaaS routers give up when the first byte has not come within 30 s.
MAX_WAIT_S = 28.0

_SPAN = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_CENTURY_S = 100 * 365 * 86400  # longer spans than this mean "everything"
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_COUNT = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
# A request may have tens of thousands of them, which would take as many microseconds.
_MAX_PARAMETERS = 1000
_MAX_PREFERENCES = 100
_PLACE = re.compile(r"(?P<year>[0-9]{4,6})(?P<rest>-[0-9-]{5}T[0-9:]{8}\.[0-9]{6}Z),(?P<id>[0-9]{1,19})", re.ASCII)
_LAST_YEAR = 294275  # of Postgres, whole
_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.ASCII | re.IGNORECASE)


def parse_query(query: str, names: Iterable[str]) -> dict[str, str]:
    """The parameters `names` of a raw query string; others are ignored. BadRequest where one is given twice, or where
    they are too many."""
    if query.count("&") >= _MAX_PARAMETERS:
        raise BadRequest(f"A query has at most {_MAX_PARAMETERS} parameters.")
    known = set(names)
    found: dict[str, str] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if "%" in name:
            name = unquote(name).decode(errors="replace")
        if name in known:
            if name in found:
                raise BadRequest(f"The parameter {name} is given twice.")
            try:
                found[name] = unquote(value.replace("+", " ")).decode()
            except UnicodeDecodeError:
                raise BadRequest(f"The parameter {name} is not percent-encoded UTF-8.") from None
    return found


def parse_poll(topics: TopicList, query: str, last_event_ids: Sequence[str], prefers: Sequence[str]) -> Poll:
    """The poll that a raw query string and the values of its Last-Event-ID and Prefer headers ask for.

    BadRequest names what is malformed. Of several beginnings the first counts, in the order of the README's table.
    """
    given = parse_query(query, ("after", "since", "last", "last_each", "before", "wait", "limit", "headers"))
    if len(last_event_ids) > 1:
        raise BadRequest("The header Last-Event-ID is given twice.")
    begins: list[Begin] = [_after(value) for value in last_event_ids]
    if "after" in given:
        begins.append(_after(given["after"]))
    if "since" in given:
        begins.append(_since(given["since"]))
    if "last" in given:
        begins.append(Last(_count("last", given["last"])))
    if "last_each" in given:
        begins.append(LastEach(_count("last_each", given["last_each"], MAX_EACH)))
    if "before" in given:
        begins.append(_before(given["before"]))
    begin = begins[0] if begins else Latest()
    # What does not fit comes later with all that was published since, so all of it comes at once if it can.
    limit = MAX_LIMIT if isinstance(begin, LastEach) else DEFAULT_LIMIT
    if given.get("headers") not in {None, "0", "1"}:
        raise BadRequest("headers is 1 or 0.")
    wait_s: float | None = None
    preferred = False
    if "wait" in given:
        if not _DECIMAL.fullmatch(given["wait"]):
            raise BadRequest("wait is a number of seconds, such as 20 or 0.5.")
        wait_s = float(given["wait"])
    elif (preference := _preferred_wait(prefers)) is not None:
        wait_s = preference
        preferred = True
    return Poll(
        topics=topics,
        begin=begin,
        wait_s=None if wait_s is None else min(wait_s, MAX_WAIT_S),
        limit=_count("limit", given["limit"]) if "limit" in given else limit,
        preferred=preferred and not isinstance(begin, Before),  # a page never waits
        headers=given.get("headers") == "1",
    )


def parse_listing(query: str) -> tuple[TopicList, str, int]:
    """What a raw query string asks for of the topics: the one item of a list that they match, the topic behind which
    they are, and how many. BadRequest."""
    given = parse_query(query, ("match", "after", "limit"))
    for name in given.keys() & {"match", "after"}:
        given[name] = given[name].replace(" ", "+")  # which topics may have, and URLs that are written by hand
    after = check_topic(given["after"]) if "after" in given else ""
    limit = _count("limit", given["limit"]) if "limit" in given else DEFAULT_LIMIT
    return TopicList([given.get("match", "**")]), after, limit


def parse_schedule(query: str) -> tuple[TopicList, Place | None, int]:
    """The same for what is scheduled, which stands behind a place; None: from the beginning."""
    given = parse_query(query, ("match", "after", "limit"))
    after = _place(given["after"]) if "after" in given else None
    limit = _count("limit", given["limit"]) if "limit" in given else DEFAULT_LIMIT
    return TopicList([given.get("match", "**")]), after, limit


def _place(text: str) -> Place:
    found = _PLACE.fullmatch(text)
    # The calendar repeats itself after 400 years.
    year = int(found["year"]) if found else 0
    if not found or not 1 <= year <= _LAST_YEAR or not parse_time(f"{2000 + year % 400}{found['rest']}"):
        raise BadRequest("after is the `next` of the page before.")
    return Place(f"{found['year']}{found['rest']}", parse_cursor(found["id"]))


def parse_list(query: str) -> TopicList:
    """The list that a raw query string names; everything where it names none. BadRequest."""
    return TopicList(parse_query(query, ("match",)).get("match", "**").split(","))


def _after(text: str) -> Begin:
    if text == "latest":
        return Latest()
    if text == "earliest":
        return After(0)
    return After(parse_cursor(text))


def _before(text: str) -> Before:
    return Before(None if text == "latest" else parse_cursor(text))


def _since(text: str) -> Since:
    if span := _SPAN.fullmatch(text):
        return Since(timedelta(seconds=min(int(span[1]) * _UNITS_S[span[2]], _CENTURY_S)))
    if time := parse_time(text):
        return Since(time)
    raise BadRequest("since is a span such as 30s, 10m, 2h or 7d, or an RFC 3339 time such as 2026-11-20T17:00:00Z.")


def _count(name: str, text: str, most: int = MAX_LIMIT) -> int:
    if not _COUNT.fullmatch(text) or int(text) > most:
        raise BadRequest(f"{name} is a number from 1 to {most}.")
    return int(text)


def _preferred_wait(prefers: Sequence[str]) -> float | None:
    """`wait` of Prefer headers (RFC 7240): the first occurrence counts; what is malformed is ignored."""
    for preference in ",".join(prefers).split(",", _MAX_PREFERENCES)[:_MAX_PREFERENCES]:
        if found := _WAIT.fullmatch(preference.partition(";")[0].strip()):
            return float(found[1])
    return None
