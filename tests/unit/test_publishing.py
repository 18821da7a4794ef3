"""Bodies and display fields as publishers send them: what is taken, and as what it is stored."""

import json

import pytest

from notifier.core.errors import BadRequest, InvalidJSON, InvalidMessage
from notifier.core.messages import BYTES, FORM, TEXT
from notifier.core.publishing import display_fields, from_body, values_from_text

JSON = "application/json"

# The body and its type


@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON", "application/json; charset=utf-8", "application/json;x=1"]
)
def test_json_has_no_content_type_of_its_own(content_type):
    message = from_body("t", b' {"a":  1} ', content_type)
    assert message.content_type is None
    assert message.body == b' {"a":  1} '


def test_a_plus_json_type_is_checked_and_kept():
    assert from_body("t", b"{}", "application/cloudevents+json").content_type == "application/cloudevents+json"
    with pytest.raises(InvalidJSON):
        from_body("t", b"{", "application/cloudevents+json")


@pytest.mark.parametrize("content_type", [None, FORM, "Application/X-WWW-Form-Urlencoded; charset=utf-8"])
@pytest.mark.parametrize(
    ("body", "stored_as"),
    [
        (b'{"a": 1}', None),
        (b"5", None),
        (b"paid", TEXT),
        (b"a=1&b=2", TEXT),
        (b"", TEXT),
        (b"NaN", TEXT),
        (b'"\\ud800"', TEXT),
        (b"1e400", TEXT),
        (b"[" * 61 + b"]" * 61, TEXT),
        (b"\xff", BYTES),
    ],
)
def test_what_curl_sends_is_json_if_it_parses_and_else_text(content_type, body, stored_as):
    message = from_body("t", body, content_type)
    assert (message.body, message.content_type) == (body, stored_as)


@pytest.mark.parametrize(
    "content_type",
    [
        *("text/plain", "image/png", "text/html; charset=utf-8", "application/jsonx", "a/b", "a/b;", "a/b ; ;c=d"),
        *('multipart/mixed; boundary="a b:;=?"', 'text/plain; a="\\"";b=c', "application/vnd.a+xml;q=1;v=2", "*/*"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{", b"\xef\xbb\xbf\x00\xff"])
def test_any_other_type_is_kept_as_it_is(content_type, body):
    message = from_body("t", body, content_type)
    assert (message.body, message.content_type) == (body, content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "json", "/", "text/", "a b/c", "text/pl\u00e4in", "text/\udcff", "a/b\n", "a/" + "b" * 254),
        # A list: a browser takes the last type in it.
        *("text/plain,text/html", "text/plain;,text/html", 'text/plain; a="b,text/html"', 'text/plain; a="\\,b"'),
        *("text/plain; charset", "text/plain; =x", "text/plain; a=b c", 'text/plain; a="b', "text/html\t;a=b", "a/b c"),
        # Where a pattern could try each space in two places.
        "a/b" + " ;" * 120 + "x",
    ],
)
def test_a_malformed_content_type_is_refused(content_type):
    with pytest.raises(BadRequest, match="Content-Type is malformed"):
        from_body("t", b"", content_type)


# Display fields


@pytest.mark.parametrize(
    ("given_values", "fields"),
    [
        ({}, None),
        ({"title": "", "click": " ", "priority": "", "tags": " , "}, None),
        (
            {"title": " Paid ", "click": "https://example.com/?a=1,2"},
            {"title": "Paid", "click": "https://example.com/?a=1,2"},
        ),
        ({"priority": " 5 "}, {"priority": 5}),
        ({"priority": "Min"}, {"priority": 1}),
        ({"priority": "low"}, {"priority": 2}),
        ({"priority": "default"}, {"priority": 3}),
        ({"priority": "HIGH"}, {"priority": 4}),
        ({"priority": "max"}, {"priority": 5}),
        ({"priority": "urgent"}, {"priority": 5}),
        ({"tags": "money, eur,,"}, {"tags": ["money", "eur"]}),
        ({"title": '\N{EURO SIGN} "\n'}, {"title": '\N{EURO SIGN} "'}),
    ],
)
def test_display_fields_come_as_text(given_values, fields):
    made = display_fields(values_from_text(given_values))
    assert (made and json.loads(made)) == fields


@pytest.mark.parametrize(
    ("values", "because"),
    [
        ({"title": "x" * 1001}, "title has 1 to 1000 characters; this one has 1001"),
        ({"click": "x" * 2001}, "click has 1 to 2000 characters; this one has 2001"),
        ({"title": "a\x00b"}, "title cannot contain a NUL character"),
        ({"title": "\udcff"}, "title is not valid Unicode"),
        ({"title": 5}, "title is a string"),
        ({"title": False}, "title is a string"),
        ({"click": ["a"]}, "click is a string"),
        ({"priority": 0}, r"priority is 1 \(least\) to 5 \(most\)"),
        ({"priority": 6}, "priority is 1"),
        ({"priority": "3"}, "priority is 1"),
        ({"priority": True}, "priority is 1"),
        ({"priority": 3.0}, "priority is 1"),
        ({"tags": "a"}, "tags is a list"),
        ({"tags": {"a": 1}}, "tags is a list"),
        ({"tags": {}}, "tags is a list"),
        ({"tags": 0}, "tags is a list"),
        ({"tags": False}, "tags is a list"),
        ({"tags": ["x"] * 33}, "at most 32"),
        ({"tags": [""]}, "a tag has 1 to 100 characters"),
        ({"tags": ["x" * 101]}, "a tag has 1 to 100 characters"),
        ({"tags": [1]}, "a tag is a string"),
    ],
)
def test_a_display_field_out_of_bounds_is_refused_by_name(values, because):
    with pytest.raises(InvalidMessage, match=because):
        display_fields(values)


@pytest.mark.parametrize(
    "priority", ["0", "6", "-1", "1.5", "highest", "5 (low)", "\N{ARABIC-INDIC DIGIT THREE}", "11"]
)
def test_a_priority_in_text_is_one_digit_or_word(priority):
    with pytest.raises(InvalidMessage, match="priority is 1"):
        display_fields(values_from_text({"priority": priority}))


def test_null_and_empty_display_fields_are_left_out():
    assert display_fields({"title": None, "click": "", "priority": None, "tags": []}) is None
    assert display_fields({"title": None, "tags": None}) is None
