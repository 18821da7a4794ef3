"""What streams are written in, and which of them a request accepts."""

import json
from datetime import UTC, datetime

import pytest

from notifier.core.errors import NotAcceptable
from notifier.core.messages import TEXT, Message
from notifier.core.polls import Answer, Gap
from notifier.wire.accept import accepted
from notifier.wire.json import encode_answer
from notifier.wire.ndjson import NDJSON
from notifier.wire.sse import SSE

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRETTY = b'{\r\n  "a": "\\n", "b": "\xe2\x80\xa8",\n"c": [1,\r2]}'


def message(seq: int, body: bytes, content_type: str | None = None, fields: str | None = None) -> Message:
    return Message(seq, "t", NOON, body, content_type, fields)


@pytest.mark.rule("S-43", "S-44")
def test_a_message_is_one_line_and_what_a_poll_shows() -> None:
    messages = [
        message(7, PRETTY),
        message(8, b"two\nlines\r", TEXT),
        message(9, b"\xff\n"),
        message(12, b"1", fields='{"title": "t",\n "tags": ["a"]}'),
    ]
    answer = Answer(messages, 20)
    shown = json.loads(encode_answer(Answer(messages[:2] + messages[3:], 20)))["messages"]
    del messages[2]
    lines = NDJSON.encode(answer).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == shown
    events = SSE.encode(answer).split(b"\n\n")
    assert events.pop() == b""
    for event, one, line in zip(events, shown, lines, strict=True):
        assert event == b"id: %b\ndata: %b" % (one["id"].encode(), line)
    for encoded in (NDJSON.encode(answer), SSE.encode(answer)):
        assert b"\r" not in encoded
    # What needs no change is not changed.
    assert b'"data": {"a":  1}' in NDJSON.encode(Answer([message(1, b'{"a":  1}')], 1))


@pytest.mark.rule("S-43", "S-44")
def test_webhooks_come_with_their_headers_where_they_are_asked_for() -> None:
    webhook = Message(7, "t", NOON, b"{}", headers=b'[["X-Event",\n"push"]]')
    for encoding in (SSE, NDJSON):
        assert b"X-Event" not in encoding.encode(Answer([webhook], 7))
        shown = encoding.with_headers.encode(Answer([webhook, message(8, b"1")], 8))
        assert b'"headers": [["X-Event", "push"]]}' in shown
        assert encoding.with_headers.content_type == encoding.content_type


@pytest.mark.rule("S-43", "S-44", "S-45")
def test_what_is_no_message() -> None:
    assert SSE.opening == b"retry: 2000\n\n"
    assert NDJSON.opening == b""
    nothing = Answer((), 41)
    assert SSE.encode(nothing) == b"id: 41\n\n"
    assert NDJSON.encode(nothing) == b"\n"
    gap = Answer((), 41, Gap("retention", 5))
    assert SSE.encode(gap) == b'event: gap\ndata: {"reason": "retention", "after": "5"}\n\nid: 41\n\n'
    assert NDJSON.encode(gap) == b'{"gap": {"reason": "retention", "after": "5"}}\n'
    full = Answer((), 41, retry_after_s=5)
    assert SSE.encode(full) == b"retry: 5000\nid: 41\n\n"
    assert NDJSON.encode(full) == b"\n"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], None),
        ([""], None),
        (["*/*"], None),
        (["application/*"], None),
        (["application/json"], None),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], None),
        (["text/event-stream"], SSE),
        (["Text/Event-Stream; charset=utf-8"], SSE),
        (["text/event-stream, text/html;q=0.5"], SSE),
        (["text/event-stream, */*"], SSE),
        (["*/*, text/event-stream"], SSE),
        (["text/event-stream;q=0.5, */*"], None),
        (["application/json, text/event-stream"], None),
        (["text/event-stream, application/json"], None),
        (["application/json;q=0.9", "text/event-stream"], SSE),
        (["application/x-ndjson"], NDJSON),
        (["application/x-ndjson;q=0.9, application/json;q=0.8"], NDJSON),
        (["application/json;q=0, application/x-ndjson;q=0.001"], NDJSON),
        (["application/x-ndjson; q=1.000"], NDJSON),
    ],
)
@pytest.mark.rule("S-25")
def test_a_stream_is_for_those_that_ask_for_it_by_its_name(accept: list[str], expected: object) -> None:
    assert accepted(accept) is expected


@pytest.mark.parametrize(
    "accept", ["text/html", "text/*", "application/json;q=0", "text/event-stream;q=0", "application/jsonx", ","]
)
@pytest.mark.rule("S-25")
def test_what_there_is_not_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"application/json, text/event-stream and application/x-ndjson\."):
        accepted([accept])
