"""Reading answers: every message keeps its text, and nothing in it can stop the reader."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.client.messages import Gap, parse

HEAD = '"id": "41", "topic": "orders/42", "time": "2026-11-20T17:00:00.123456Z"'


def one(data: str, rest: str = "") -> str:
    return f'{{"messages": [{{{HEAD}, "data": {data}{rest}}}], "cursor": "41"}}'


def test_a_message_has_all_its_fields():
    rest = ', "title": "Paid", "click": "https://a.b", "priority": 4, "tags": ["money", "x"], "later": {"a": []}'
    batch = parse(one('{"status": "paid"}', rest))
    (message,) = batch.messages
    assert (batch.cursor, batch.gap) == ("41", None)
    assert (message.id, message.topic) == ("41", "orders/42")
    assert message.time == datetime(2026, 11, 20, 17, 0, 0, 123456, tzinfo=UTC)
    assert message.data == {"status": "paid"}
    assert (message.content_type, message.encoding) == ("application/json", None)
    assert (message.title, message.click, message.priority, message.tags) == ("Paid", "https://a.b", 4, ("money", "x"))


def test_a_webhook_has_its_headers():
    (message,) = parse(one("1", ', "headers": [["X-GitHub-Event", "push"], ["X-A", ""]]')).messages
    assert message.headers == (("X-GitHub-Event", "push"), ("X-A", ""))


def test_text_and_bytes_come_back_as_such():
    (text,) = parse(one('"a\\nb"', ', "content_type": "text/plain"')).messages
    (image,) = parse(one('"iVBORw=="', ', "content_type": "image/png", "encoding": "base64"')).messages
    assert (text.data, text.content_type) == ("a\nb", "text/plain")
    assert (image.data, image.content_type) == (b"\x89PNG", "image/png")


@pytest.mark.parametrize("data", ["1e400", "0.10", "123456789012345678901234567890", "1E+2", "-0", '"\\u00e9é💥"'])
def test_raw_keeps_every_character_of_the_data(data):
    (message,) = parse(one(data)).messages
    assert f'"data": {data}' in message.raw


def test_line_breaks_between_tokens_are_folded_and_those_in_strings_stay_escaped():
    (message,) = parse(one('{\r\n  "a":\n"x\\r\\ny" }', "\n")).messages
    assert "\n" not in message.raw
    assert "\r" not in message.raw
    assert json.loads(message.raw)["data"] == message.data == {"a": "x\r\ny"}


def test_no_digit_of_a_number_is_lost():
    (message,) = parse(one("[9007199254740993, 0.1000000000000000000001]")).messages
    assert message.data[0] == 2**53 + 1
    exact = json.loads(message.raw, parse_float=Decimal)["data"]
    assert exact == [2**53 + 1, Decimal("0.1000000000000000000001")]


def test_a_number_of_any_length_is_read():
    (message,) = parse(one("9" * 5000)).messages
    assert message.data == Decimal("9" * 5000)


def test_json_that_nests_too_deep_for_python_stops_only_its_reader():
    deep = "[" * 100_000 + '"]", {"a": "}"}' + "]" * 100_000
    text = one("1").replace('"messages": [', f'"messages": [{{{HEAD}, "data": {deep}}}, ', 1)
    poisoned, next_one = parse(text).messages
    assert deep in poisoned.raw
    assert next_one.data == 1
    with pytest.raises(RecursionError):
        _ = poisoned.data


def test_a_gap_is_read_wherever_it_stands():
    gap = '"gap": {"reason": "retention", "after": "7", "more": 1}'
    for text in (f'{{{gap}, "messages": [], "cursor": "9"}}', f'{{"cursor": "9", "messages": [ ] , {gap}}}'):
        assert parse(text) == ([], "9", Gap("retention", "7"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>Back soon</html>",
        "[]",
        "null",
        "{}",
        '{"messages": []}',
        '{"cursor": "1"}',
        '{"messages": [], "cursor": 1}',
        '{"messages": [], "cursor": ""}',
        '{"messages": {}, "cursor": "1", "gap": {}}',
        '{"messages": [1], "cursor": "1"}',
        '{"messages": [{"id": "1"}], "cursor": "1"}',
        one("1").replace('"41"', "41", 1),
        one("1").replace("2026", "yesterday"),
        f'{{"messages": [{{{HEAD}}}], "cursor": "1"}}',
    ],
)
def test_anything_but_an_answer_is_recognised(text):
    with pytest.raises((ValueError, LookupError, TypeError)):
        parse(text)


def test_the_beginning_of_an_answer_is_not_mistaken_for_an_answer():
    text = one('{"a": [1, "}]", {"b": null}]}', ', "tags": ["x"]')
    parse(text)
    for end in range(len(text)):
        with pytest.raises((ValueError, LookupError, TypeError)):
            parse(text[:end])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.lists(_json, max_size=5), st.sampled_from([None, 2, "\r\n\t"]), st.booleans())
def test_any_messages_come_back_as_they_were(values, indent, ascii_only):
    text = json.dumps(
        {"messages": [{**json.loads(f"{{{HEAD}}}"), "data": value} for value in values], "cursor": "41"},
        indent=indent,
        ensure_ascii=ascii_only,
    )
    messages = parse(text).messages
    assert [message.data for message in messages] == values
    assert [json.loads(message.raw)["data"] for message in messages] == values
    assert all("\n" not in message.raw for message in messages)
