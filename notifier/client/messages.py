"""What a poll's answer holds.

Each message keeps its text as the server sent it, because Python's numbers cannot hold all that JSON's can (1e400,
0.10), and decodes its data only on demand: a message that nests deeper than Python's decoder goes must not
end a subscription. So values are first found in the text.
"""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple


class Gap(NamedTuple):
    """What followed the id `after` can no longer be delivered (`reason` is "retention"), or the database is another
    one ("reset"): then messages may repeat."""

    reason: str
    after: str


@dataclass(frozen=True)
class Message:
    """A message as the server sent it. `raw` is its JSON text, on one line, with every digit of its numbers:
    `json.loads(message.raw, parse_float=Decimal)["data"]` keeps them where a float would not. `headers` are those of a
    webhook, where they were asked for.
    """

    id: str
    topic: str
    time: datetime
    raw: str = field(repr=False)
    content_type: str = "application/json"
    encoding: str | None = None
    title: str | None = None
    click: str | None = None
    priority: int | None = None
    tags: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()

    @cached_property
    def data(self) -> Any:  # noqa: ANN401  whatever JSON holds
        """What was published: a JSON value, a string, or bytes. RecursionError if it nests too deep for Python."""
        data = json.loads(_parts(self.raw)["data"], parse_int=_integer)
        return base64.b64decode(data) if self.encoding == "base64" else data


class Batch(NamedTuple):
    """The answer to one poll. `cursor` is where to go on, which may be behind the last message."""

    messages: list[Message]
    cursor: str
    gap: Gap | None

    def answers(self, after: int) -> bool:
        """Whether it can be the answer to a poll after this cursor, and not an old one that a cache repeats."""
        if self.gap and self.gap.reason == "reset":
            return int(self.cursor) != after
        return int(self.cursor) >= after and all(int(message.id) > after for message in self.messages)


class Page(NamedTuple):
    """A page of what was, oldest first. `before` leads to the page before it, which ends where this one begins; None is
    the beginning. `cursor` leads forwards: what comes after the page."""

    messages: list[Message]
    before: str | None
    cursor: str
    gap: Gap | None

    def ends_before(self, cursor: int) -> bool:
        """Whether it can be the page that ends just before this cursor, and not one that a cache repeats."""
        return all(int(message.id) < cursor for message in self.messages)


def parse(text: str) -> Batch:
    """ValueError, LookupError or TypeError for text that is not the answer to a poll, or only the beginning of one."""
    return _batch(_parts(text))


def parse_page(text: str) -> Page:
    """The same for a page."""
    parts = _parts(text)
    messages, cursor, gap = _batch(parts)
    before = None if parts["before"] == "null" else _cursor(parts["before"])
    return Page(messages, before, cursor, gap)


def _batch(parts: dict[str, str]) -> Batch:
    array = parts["messages"]
    messages = [parse_message(array[begin:end]) for _, begin, end in _members(array)]
    gap = json.loads(parts.get("gap", "null"))
    return Batch(messages, _cursor(parts["cursor"]), Gap(gap["reason"], gap["after"]) if gap is not None else None)


def parse_message(raw: str) -> Message:
    """The message that is this JSON object. ValueError, LookupError or TypeError."""
    # Valid JSON has line breaks only between its tokens.
    raw = raw.replace("\r", " ").replace("\n", " ")
    parts = _parts(raw)
    if "data" not in parts:
        raise ValueError("a message without data")
    names = {"content_type", "encoding", "title", "click", "priority"} & parts.keys()
    return Message(
        id=_cursor(parts["id"]),
        topic=_string(parts["topic"]),
        time=datetime.fromisoformat(_string(parts["time"])),
        raw=raw,
        tags=tuple(json.loads(parts.get("tags", "[]"))),
        headers=tuple((str(name), str(value)) for name, value in json.loads(parts.get("headers", "[]"))),
        **{name: json.loads(parts[name]) for name in names},
    )


def _string(text: str) -> str:
    value = json.loads(text)
    if not isinstance(value, str) or not value:
        raise ValueError("not a string")
    return value


def _cursor(text: str) -> str:
    value = _string(text)
    if not re.fullmatch("[0-9]{1,19}", value):
        raise ValueError("not a cursor")
    return value


_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{\]}]')
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


def _parts(text: str) -> dict[str, str]:
    """The texts of the values of a JSON object."""
    return {key: text[begin:end] for key, begin, end in _members(text)}


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """Key, begin and end of each value in a JSON object or array; the keys of an array are empty.

    ValueError or IndexError where the text is cut short.
    """
    at = _skip_space(text, 0)
    is_object = text[at] == "{"
    if not is_object and text[at] != "[":
        raise ValueError("neither an object nor an array")
    at = _skip_space(text, at + 1)
    while text[at] not in "]}":
        key = ""
        if is_object:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip_space(text, _skip_space(text, at) + 1)  # over the colon
        end = _end(text, at)
        yield key, at, end
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _end(text: str, begin: int) -> int:
    """Where the JSON value at `begin` ends, however deep it nests."""
    try:
        return _DECODER.raw_decode(text, begin)[1]
    except RecursionError:
        depth = 0
        for token in _STRING_OR_BRACKET.finditer(text, begin):
            depth += (token[0] in "[{") - (token[0] in "]}")
            if depth == 0:
                return token.end()
        raise ValueError("cut short") from None


def _integer(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:  # more than 4300 digits, Python's limit
        return Decimal(digits)
