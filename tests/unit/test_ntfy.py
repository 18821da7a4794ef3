"""ntfy's JSON, and its names for what is not built."""

import json
import tracemalloc

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
    message = from_ntfy(json.dumps(body).encode(), {})
    assert (message.topic, message.body, message.content_type) == ("mytopic", body["message"].encode(), TEXT)
    assert json.loads(message.fields) == {name: body[name] for name in ("title", "tags", "priority", "click")}


@pytest.mark.parametrize("text", ['{"a": 1}', "5", "", "\u20ac \\ \n"])
def test_its_text_stays_text(text):
    message = from_ntfy(json.dumps({"topic": "t", "message": text}).encode(), {})
    assert (message.body.decode(), message.content_type, message.fields) == (text, TEXT, None)


def test_what_says_nothing_is_left_out():
    nothing = {"title": "", "priority": 0, "tags": [], "click": None, "message": None, "firebase": "no", "cache": "yes"}
    nothing |= {"actions": [], "attach": "", "icon": None, "markdown": False, "delay": ""}
    message = from_ntfy(json.dumps({"topic": "t"} | nothing).encode(), {})
    assert (message.body, message.fields) == (b"", None)


def test_headers_stand_beside_members():
    message = from_ntfy(b'{"topic": "t", "message": "m", "title": "T"}', {"priority": "high", "tags": "a, b"})
    assert json.loads(message.fields) == {"title": "T", "priority": 4, "tags": ["a", "b"]}


@pytest.mark.parametrize(
    ("member", "because"),
    [
        ('"delay": "30min"', "delay is not supported yet"),
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
