"""Messages and answers as JSON.

A message is encoded once, however many answers hold it; an answer once, however many polls share it. A body bounds the
size of its JSON and the time to make it: JSON is spliced in as it is, text at most doubles, all else is base64.
"""

import json
import re
from base64 import b64encode

import msgspec

from notifier.core.counts import Counts
from notifier.core.hub import Waiting
from notifier.core.listing import Listing, Schedule
from notifier.core.messages import FORM, Message, is_json_type, media_type
from notifier.core.percent import unquote
from notifier.core.polls import Answer
from notifier.core.strict_json import is_json
from notifier.core.times import format_time

# Decoding one takes 20 ms for each MiB, perhaps in a turn of the event loop. A larger one is shown as it came.
MAX_FORM = 1024 * 1024

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
# The characters that JSON strings escape: with two bytes, and with six.
_SHORT = b'"\\\b\f\n\r\t'
_LONG = bytes(set(range(0x20)) - set(_SHORT))


def encode_message(message: Message) -> tuple[bytes, bytes, bytes]:
    """The JSON object that responses hold, in three pieces, so that a large body is not copied: up to the data, the
    data, and the rest."""
    if message.encoded is None:
        message.encoded = _encode(message)
    return message.encoded


def with_headers(message: Message) -> tuple[bytes, bytes, bytes]:
    """The same with the headers of a webhook. They are not kept twice: few ask for them."""
    head, data, rest = encode_message(message)
    if message.headers is None:
        return head, data, rest
    return head, data, b'%b, "headers": %b}' % (rest[:-1], message.headers)


def encode_view(message: Message, source: str | None, verified: bool) -> bytes:
    """The JSON object of one message with all that is kept beside it. `source` is None for what is no webhook."""
    head, data, rest = with_headers(message)
    if source is not None:
        beside = json.dumps({"source": source, "verified": verified}).encode()
        rest = b"%b, %b" % (rest[:-1], beside[1:])
    return head + data + rest


def encode_answer(answer: Answer, *, headers: bool = False) -> bytes:
    """The JSON of a poll's answer, perhaps with the headers of webhooks."""
    name = "json with headers" if headers else "json"
    body = answer.renderings.get(name)
    if body is None:
        gap = b""
        if answer.gap:
            gap = b', "gap": {"reason": "%b", "after": "%d"}' % (answer.gap.reason.encode(), answer.gap.after)
        if answer.before is not None:
            gap += b', "before": "%d"' % answer.before if answer.before else b', "before": null'
        end = b'], "cursor": "%d"%b}' % (answer.cursor, gap)
        pieces = [b'{"messages": [']
        for message in answer.messages:
            pieces += with_headers(message) if headers else message.encoded or encode_message(message)
            pieces.append(b", ")
        if answer.messages:
            del pieces[-1]
        pieces.append(end)
        body = answer.renderings[name] = b"".join(pieces)
    return body


def encode_listing(listing: Listing) -> bytes:
    """The JSON of a page of topics."""
    topics = [
        {"topic": topic.name, "last_id": str(topic.last_id), "last_time": format_time(topic.last_time)}
        for topic in listing.topics
    ]
    return json.dumps({"topics": topics, "next": listing.next}).encode()


def encode_schedule(schedule: Schedule) -> bytes:
    """The JSON of a page of what is scheduled."""
    scheduled = [
        {"id": str(message.place.id), "topic": message.topic, "at": message.place.at} for message in schedule.messages
    ]
    after = schedule.next and f"{schedule.next.at},{schedule.next.id}"
    return json.dumps({"scheduled": scheduled, "next": after}).encode()


def encode_counts(counts: Counts) -> bytes:
    """The JSON of how many messages came in each minute."""
    end = format_time(counts.end)
    return json.dumps({"counts": counts.counts, "end": end, "cursor": str(counts.cursor)}).encode()


def encode_waiting(waiting: Waiting, processes: int) -> bytes:
    """The JSON of who waits in one of so many processes."""
    items = [{"item": item, "clients": polls} for item, polls in waiting.items]
    told = {"waiting": items, "clients": waiting.polls, "complete": waiting.complete, "processes": processes}
    return json.dumps(told).encode()


def _encode(message: Message) -> tuple[bytes, bytes, bytes]:
    content_type = message.content_type
    rest = "" if content_type is None else f', "content_type": {json.dumps(content_type)}'
    if content_type is None or is_json_type(content_type):
        data = message.body
    elif (carried := _carried(message.body, content_type)) is not None:
        data = carried
    elif (text := _string(message.body, content_type)) is not None:
        data = text
    else:
        data = b'"%b"' % b64encode(message.body)
        rest = ', "encoding": "base64"' + rest
    if message.fields:
        rest += ", " + message.fields[1:-1]
    head = f'{{"id": "{message.seq}", "topic": "{message.topic}", "time": "{format_time(message.time)}", "data": '
    return head.encode(), data, f"{rest}}}".encode() if rest else b"}"


def _carried(body: bytes, content_type: str) -> bytes | None:
    """The JSON that a form carries as its only field, `payload`, as GitHub and Slack send it; None if it does not."""
    if not body.startswith(b"payload=") or len(body) > MAX_FORM or b"&" in body or media_type(content_type) != FORM:
        return None
    carried = unquote(body.removeprefix(b"payload=").replace(b"+", b" "))
    return carried if is_json(carried) else None


def _string(body: bytes, content_type: str) -> bytes | None:
    """The JSON string of a text; None if it is not UTF-8 text, or more than doubles (at worst it grows sixfold)."""
    if not (media_type(content_type).startswith("text/") or media_type(content_type) == FORM):
        return None
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        return None
    size = len(body)
    if 5 * (size - len(body.translate(None, _LONG))) + size - len(body.translate(None, _SHORT)) > size:
        return None
    try:
        return msgspec.json.encode(body.decode())
    except UnicodeDecodeError:
        return None
