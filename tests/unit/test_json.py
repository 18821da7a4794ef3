"""Messages and answers as JSON: what each body is shown as, how large it may become, and that it is made once."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.core.errors import InvalidJSON
from notifier.core.messages import FORM, Message
from notifier.core.polls import Answer, Gap
from notifier.core.publishing import from_body
from notifier.core.webhooks.kept import headers_of
from notifier.wire import json as wire_json
from notifier.wire.json import encode_answer, encode_message

NOON = datetime(2026, 11, 20, 12, 0, 0, 1, tzinfo=UTC)

# A message


def encoded(body, content_type=None, fields=None):
    return b"".join(encode_message(Message(41, "orders/42", NOON, body, content_type, fields)))


def shown(body, content_type=None, fields=None):
    return json.loads(encoded(body, content_type, fields))


def test_a_message_is_shown_with_only_the_fields_that_have_a_value():
    assert encoded(b'{"a":  1}') == (
        b'{"id": "41", "topic": "orders/42", "time": "2026-11-20T12:00:00.000001Z", "data": {"a":  1}}'
    )


def test_json_is_spliced_in_byte_for_byte():
    body = b'\n{"a": 1e308, "a": "\\u00e9\\/", "b":1.0}\t'
    assert body in encoded(body)
    assert shown(b"{}", "application/geo+json") == {
        "id": "41",
        "topic": "orders/42",
        "time": "2026-11-20T12:00:00.000001Z",
        "data": {},
        "content_type": "application/geo+json",
    }


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("text/plain", b"", ""),
        ("text/plain; charset=utf-8", '\N{EURO SIGN} = "\\\x00\n'.encode(), '\N{EURO SIGN} = "\\\x00\n'),
        ('text/html; charset="UTF-8"', b"<b>", "<b>"),
        ("TEXT/plain;charset=us-ascii", b"a", "a"),
        ("text/csv", b"\xef\xbb\xbfa;b", "\ufeffa;b"),
        (FORM, b"payload=%7B", "payload=%7B"),
        (FORM, b"payload=%7B%7D&a=1", "payload=%7B%7D&a=1"),
        (FORM, b"a=1", "a=1"),
        ("text/plain", b"payload=%7B%7D", "payload=%7B%7D"),
    ],
)
def test_text_is_shown_as_a_string(content_type, body, data):
    message = shown(body, content_type)
    assert (message["data"], message["content_type"]) == (data, content_type)
    assert "encoding" not in message


@pytest.mark.rule("W-15")
def test_a_form_that_carries_json_is_shown_as_that_where_it_is_not_large(monkeypatch):
    body = b"payload=%7B%22a%22%3A+1e308%2C%22b%22%3A%22%2B%C3%A9%22%7D"
    message = shown(body, FORM)
    assert (message["data"], message["content_type"]) == (
        {"a": 1e308, "b": "+\N{LATIN SMALL LETTER E WITH ACUTE}"},
        FORM,
    )
    monkeypatch.setattr(wire_json, "MAX_FORM", len(body) - 1)
    assert shown(body, FORM)["data"] == body.decode()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("image/png", b"\x89PNG"),
        ("application/octet-stream", b""),
        ("application/xml", b"<a/>"),
        ("text/plain", b"caf\xe9"),
        ("text/plain; charset=iso-8859-1", b"cafe"),
        ('text/plain; x="; y"; charset=utf-16', b"a\x00"),
    ],
)
def test_bytes_and_text_that_is_not_utf8_are_shown_as_base64(content_type, body):
    message = shown(body, content_type)
    assert base64.b64decode(message["data"], validate=True) == body
    assert (message["encoding"], message["content_type"]) == ("base64", content_type)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\n" * 100, True),  # each takes two bytes: just doubled
        (b"\x01" * 19 + b"x" * 81, True),
        (b"\x01" * 20 + b"x" * 80, True),
        (b"\x01" * 20 + b"x" * 79 + b"\n", False),
        (b"\x01" * 100, False),
    ],
)
@pytest.mark.rule("S-3")
def test_text_that_would_more_than_double_is_shown_as_base64(body, text):
    message = shown(body, "text/plain")
    assert ("encoding" not in message) == text
    assert (message["data"].encode() if text else base64.b64decode(message["data"])) == body
    assert len(encoded(body, "text/plain")) <= 2 * len(body) + 200


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FF, exclude_categories=["Cs"]), max_size=60))
def test_any_text_stays_within_its_bound(text):
    message = Message(2**63 - 1, "t" * 255, NOON, text.encode(), "text/plain" + ';x="' * 60, "{}")
    assert len(b"".join(encode_message(message))) + len(", ") <= message.size


def test_display_fields_stand_beside_the_data():
    message = shown(b"1", 'a/b; c="d"', '{"title": "T", "tags": ["x"]}')
    assert (message["title"], message["tags"], message["content_type"]) == ("T", ["x"], 'a/b; c="d"')


@settings(deadline=None)
@given(
    st.binary(max_size=50),
    st.one_of(st.none(), st.just("text/plain"), st.just(FORM), st.just("a/b"), st.just("a/b+json")),
)
def test_whatever_is_taken_is_shown_as_json(body, content_type):
    try:
        message = from_body("t", body, content_type)
    except InvalidJSON:
        return
    stored = Message(1, "t", NOON, message.body, message.content_type, message.fields)
    wire = b"".join(encode_message(stored))
    assert json.loads(wire.decode(), parse_int=str)["id"] == "1"
    assert len(wire) + len(", ") <= stored.size


# The answer


def message(seq):
    return Message(seq, "t", NOON, b"1")


@pytest.mark.rule("S-33", "S-13")
@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.text())),
    st.text(),
    st.sampled_from([None, "text/plain"]),
)
def test_the_headers_of_a_webhook_are_shown_in_an_answer_that_asks_for_them_and_within_its_bound(
    headers, text, content_type
):
    stored = json.dumps({"headers": headers, "source": "ci", "verified": False}, ensure_ascii=False)
    body = text.encode() if content_type else json.dumps(text).encode()
    webhook = Message(7, "t", NOON, body, content_type, headers=headers_of(stored))
    plain = Message(8, "t", NOON, b"1")
    answer = Answer((webhook, plain), 8)
    without, with_them = (json.loads(encode_answer(answer, headers=asked)) for asked in (False, True))
    assert with_them["messages"][0].pop("headers") == [list(each) for each in headers]
    assert with_them == without
    assert len(encode_answer(Answer((webhook,), 8), headers=True)) <= webhook.size + len(encode_answer(Answer((), 8)))


def test_headers_in_the_table_that_no_server_has_written_are_left_out():
    assert [headers_of(stored) for stored in (None, "{}", "1", "[]", '{"headers": ')] == [None] * 5


def test_an_answer_holds_its_messages_and_its_cursor():
    assert encode_answer(Answer((), 41)) == b'{"messages": [], "cursor": "41"}'
    seven, nine = (b"".join(encode_message(message(seq))) for seq in (7, 9))
    two = Answer((message(7), message(9)), 9)
    assert encode_answer(two) == b'{"messages": [%b, %b], "cursor": "9"}' % (seven, nine)


@pytest.mark.parametrize("reason", ["retention", "reset"])
def test_a_gap_says_why_and_what_is_still_sure(reason):
    answer = json.loads(encode_answer(Answer((), 41, Gap(reason, 7))))
    assert answer == {"messages": [], "cursor": "41", "gap": {"reason": reason, "after": "7"}}


def test_a_message_and_an_answer_are_encoded_once():
    shared = message(7)
    assert encode_message(shared) is encode_message(shared)
    answer = Answer((shared,), 7)
    assert encode_answer(answer) is encode_answer(answer)


def test_a_large_body_of_json_is_not_copied_until_it_is_sent():
    body = b'"%b"' % (b"x" * 1000)
    assert encode_message(Message(1, "t", NOON, body))[1] is body
