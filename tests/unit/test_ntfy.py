"""ntfy's JSON, and its names for what is not built."""

import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from notifier.core.errors import InvalidJSON, InvalidMessage, InvalidTopic
from notifier.core.messages import TEXT
from notifier.core.ntfy import from_ntfy, refusal


def test_a_message_of_ntfy_is_text_with_display_fields():
    body = {
        "topic": "mytopic",
        "message": "Disk space is low: 5.1 GB left",
        "title": "Low disk space alert",
        "tags": ["warning", "cd"],
        "priority": 4,
        "click": "https://homecamera.lan/xasds1h2xsSsa/",
    }
    message, _ = from_ntfy(json.dumps(body).encode(), {})
    assert (message.topic, message.body, message.content_type) == ("mytopic", body["message"].encode(), TEXT)
    assert json.loads(message.fields) == {name: body[name] for name in ("title", "tags", "priority", "click")}


@pytest.mark.parametrize("text", ['{"a": 1}', "5", "", "\u20ac \\ \n"])
def test_its_text_stays_text(text):
    message, _ = from_ntfy(json.dumps({"topic": "t", "message": text}).encode(), {})
    assert (message.body.decode(), message.content_type, message.fields) == (text, TEXT, None)


def test_what_says_nothing_is_left_out():
    nothing = {"title": "", "priority": 0, "tags": [], "click": None, "message": None, "firebase": "no", "cache": "yes"}
    nothing |= {"actions": [], "attach": "", "icon": None, "markdown": False, "delay": ""}
    message, later = from_ntfy(json.dumps({"topic": "t"} | nothing).encode(), {})
    assert (message.body, message.fields, later) == (b"", None, None)


def test_headers_stand_beside_members():
    message, later = from_ntfy(b'{"topic": "t", "message": "m", "title": "T"}', {"priority": "high", "tags": "a, b"})
    assert json.loads(message.fields) == {"title": "T", "priority": 4, "tags": ["a", "b"]}
    assert later is None


@pytest.mark.parametrize(
    ("text", "later"),
    [
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("30min", timedelta(minutes=30)),
        ("3 hours", timedelta(hours=3)),
        ("2 Days", timedelta(days=2)),
        ("1639194738", datetime(2021, 12, 11, 3, 52, 18, tzinfo=UTC)),
        ("2026-11-26t09:00:00.25 01:00", datetime(2026, 11, 26, 8, 0, 0, 250000, tzinfo=UTC)),
    ],
)
def test_a_delay_is_a_span_or_a_time(text, later):
    assert from_ntfy(json.dumps({"topic": "t", "delay": text}).encode(), {})[1] == later
    assert from_ntfy(b'{"topic": "t"}', {"at": f" {text} "})[1] == later


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "-1h",
        "1w",
        "1h30m",
        "1.5h",
        "9999999999s",
        "999999999d",
        "tomorrow",
        "10am",
        "٣s",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-11-26",
        "123456789012",
        "2026-11-26T09:00:00",
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InvalidMessage, match=r"a span such as 90s|at most 365000d"):
        from_ntfy(json.dumps({"topic": "t", "delay": text}).encode(), {})


@pytest.mark.parametrize(
    ("member", "because"),
    [
        ('"delay": "10:30am"', "Words such as 'tomorrow' are not understood"),
        ('"delay": {"a": 1}', "a span such as 90s"),
        ('"in": "1h"', "'in' is not a member of ntfy's messages"),
        ('"t": "x"', "'t' is not a member of ntfy's messages"),
        ('"actions": [{"action": "view"}]', "no action buttons"),
        ('"attach": "https://example.com/a.png"', "no attachments"),
        ('"filename": "a.png"', "no attachments"),
        ('"email": "a@example.com"', "No e-mail is sent"),
        ('"call": "yes"', "No phone is called"),
        ('"icon": "https://example.com/a.png"', "no icons"),
        ('"markdown": true', "text/markdown"),
        ('"cache": "no"', "until its retention ends"),
        ('"sequence_id": "x"', "never changed"),
        ('"titel": "x"', "'titel' is not a member of ntfy's messages"),
        ('"a:b": "x"', "'a:b' is not a member of ntfy's messages"),
        ('"priority": 6', "priority is 1"),
        ('"title": 5', "title is a string"),
        ('"tags": "a"', "tags is a list"),
        ('"tags": ["a:b"], "message": "a:b"', "given twice"),
        ('"click": "https://example.com/"', "click is given twice, in the body and beside it"),
    ],
)
def test_what_is_not_built_or_malformed_is_refused(member, because):
    with pytest.raises(InvalidMessage, match=because):
        from_ntfy(f'{{"topic": "t", "message": "m", {member}}}'.encode(), {"click": "https://example.com/"})


@pytest.mark.parametrize(
    ("body", "error", "because"),
    [
        (b"hello", InvalidJSON, "This path takes ntfy's JSON, with topic and message.* Not valid JSON"),
        (b'["t"]', InvalidJSON, "This path takes ntfy's JSON"),
        (b'{"topic": "t", "message": "\\ud800"}', InvalidJSON, "surrogate"),
        (b'{"topic": "t", "message": "\xff"}', InvalidJSON, "UTF-8"),
        (b'{"message": "m"}', InvalidMessage, "topic is a string that must be given"),
        (b'{"topic": "t", "message": 5}', InvalidMessage, "message is a string"),
        (b'{"topic": "a b", "message": "m"}', InvalidTopic, "'a b' is not a topic"),
    ],
)
def test_what_is_not_a_message_of_ntfy_is_refused(body, error, because):
    with pytest.raises(error, match=because):
        from_ntfy(body, {})


def test_a_name_that_asks_for_nothing_special_is_no_reason_to_refuse():
    assert refusal({"cache": "yes", "markdown": "no", "unifiedpush": "0", "delay": " ", "title": "delay"}) is None


def test_a_message_that_is_no_string_is_refused_unbuilt():
    body = b'{"topic": "t", "message": [' + b'"ab",' * 100_000 + b'""]}'
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessage, match="message is a string"):
            from_ntfy(body, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(body)
