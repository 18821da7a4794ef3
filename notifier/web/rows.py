"""The newest messages as rows of the console, for the page as it is served: what static/console/feed.js makes of them.

The page's script takes them over. What it shows in another way (times, in the zone of the reader) it then changes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from notifier.core.messages import Message, is_json_type, media_type
from notifier.core.times import format_time
from notifier.core.window import Window
from notifier.wire.json import encode_message

# A large screen's.
ROWS = 40
# Characters that a row can show, and tags.
LINE = 300
TAGS = 5
# A larger body is not read for one line: only its beginning is looked at.
READ = 16 * 1024

HUES = 24
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class Row:
    """A message, newest first, as text: the template escapes it."""

    id: int
    topic: str
    hue: int
    time: str
    clock: str
    age: str
    line: str
    titled: bool
    priority: int | None
    tags: Sequence[str]


def newest_rows(window: Window, now: datetime) -> list[Row]:
    """Of the newest messages that the window has, of all topics; `now` is in UTC."""
    return [_row(message, now) for message in islice(window.back(), ROWS)]


def _row(message: Message, now: datetime) -> Row:
    fields: dict[str, Any] = json.loads(message.fields) if message.fields else {}
    title: str | None = fields.get("title")
    line = title if title is not None else _text(message)[:LINE].lstrip().split("\n", 1)[0]
    return Row(
        id=message.seq,
        topic=message.topic,
        hue=hue(message.topic),
        time=format_time(message.time),
        clock=_clock(message.time, now),
        age=_age(now - message.time),
        line=line[:LINE],
        titled=title is not None,
        priority=fields.get("priority"),
        tags=fields.get("tags", [])[:TAGS],
    )


def _text(message: Message) -> str:
    """The beginning of its payload, as JSON.stringify would have it where that is JSON."""
    content_type = message.content_type
    shown = f"{content_type}, {len(message.body):,} bytes"
    if len(message.body) > READ:
        is_text = is_json_type(content_type) or media_type(content_type or "").startswith("text/")
        return message.body[: 4 * LINE].decode(errors="ignore") if is_text else shown
    _, data, rest = encode_message(message)
    if rest.startswith(b', "encoding"'):
        return shown
    value = json.loads(data)
    if isinstance(value, str) and not is_json_type(content_type):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _clock(time: datetime, now: datetime) -> str:
    day = f"{time:%b} {time.day} " if now - time > timedelta(hours=12) else ""
    return f"{day}{time.isoformat(timespec='milliseconds')[11:23]}"


def _age(past: timedelta) -> str:
    seconds = max(0, int(past.total_seconds()))
    length, unit = next(((length, unit) for length, unit in _AGES if seconds >= length), (1, "s"))
    return f"{seconds // length} {unit}"


def hue(topic: str) -> int:
    """The number of the colour that all topics with the same first segment have."""
    number = 0
    for character in topic.split("/", 1)[0]:
        number = (number * 31 + ord(character)) % 360
    return number * HUES // 360
