"""Batches: an array or NDJSON of messages, taken as a whole or refused with the place of the first bad one."""

import json
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.core.errors import InvalidJSON, InvalidMessage
from notifier.core.messages import FORM, NDJSON
from notifier.core.publishing import parse_batch

JSON = "application/json"


def batch(body, content_type=JSON):
    return [(message.topic, message.body, message.fields) for message in parse_batch(body, content_type)]


def test_a_batch_is_a_json_array_in_order():
    body = (
        b' [ {"topic": "b", "data": 1} '
        b', {"data" :{"x":  [ ]} ,"topic":"a", "title": "T", "priority": 4, "tags": ["m"]} ] \n'
    )
    assert batch(body) == [
        ("b", b"1", None),
        ("a", b'{"x":  [ ]}', '{"title": "T", "priority": 4, "tags": ["m"]}'),
    ]


def test_a_batch_is_ndjson_with_any_line_ends_and_empty_lines():
    body = b'\n{"topic": "b", "data": 1}\r\n\n {"topic": "a", "data": "\xe2\x80\xa8"} '
    assert batch(body, "application/x-ndjson; charset=utf-8") == [("b", b"1", None), ("a", b'"\xe2\x80\xa8"', None)]


@pytest.mark.parametrize("content_type", [None, FORM, "text/plain"])
def test_a_batch_is_an_array_whatever_its_type_except_ndjson(content_type):
    assert batch(b'[{"topic": "a", "data": null}]', content_type) == [("a", b"null", None)]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda children: st.one_of(st.lists(children, max_size=4), st.dictionaries(st.text(), children, max_size=4)),
    max_leaves=10,
)
json_texts = st.builds(
    lambda value, indent, ascii_only: json.dumps(value, indent=indent, ensure_ascii=ascii_only),
    json_values,
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
).filter(lambda text: text.isascii() or text.encode(errors="ignore").decode() == text)


@settings(deadline=None)
@given(st.lists(json_texts, min_size=1, max_size=5))
def test_data_of_a_batch_is_kept_byte_for_byte(texts):
    body = "[" + ",".join(f'{{"data":{text}\t, "topic": "t"}}' for text in texts) + "]"
    assert [stored.decode() for _, stored, _ in batch(body.encode())] == texts


def test_numbers_in_data_are_never_converted():
    numbers = ["1e308", "-0", "0.10000000000000000000000001", "9" * 308]
    body = "[" + ",".join(f'{{"topic": "t", "data": {number}}}' for number in numbers) + "]"
    assert [stored.decode() for _, stored, _ in batch(body.encode())] == numbers


def test_a_batch_has_one_to_a_thousand_messages():
    message = b'{"topic": "t", "data": 0}'
    assert len(parse_batch(b"[" + b",".join([message] * 1000) + b"]", JSON)) == 1000
    assert len(parse_batch(b"\n".join([message] * 1000), NDJSON)) == 1000
    for content_type, too_many, none in (
        (JSON, b"[" + b",".join([message] * 1001) + b"]", b"[]"),
        (NDJSON, b"\n".join([message] * 1001), b"\n"),
    ):
        with pytest.raises(InvalidMessage, match=r"^A batch has at most 1000 messages"):
            parse_batch(too_many, content_type)
        with pytest.raises(InvalidMessage, match=r"^A batch has at least one message"):
            parse_batch(none, content_type)


GOOD = '{"topic": "t", "data": 0}'


@pytest.mark.parametrize(
    ("bad", "because"),
    [
        ('{"topic": "t"}', "topic and data must be given"),
        ('{"data": 1}', "topic and data must be given"),
        ("{}", "topic and data must be given"),
        ('{"topic": 5, "data": 1}', "topic is a string"),
        ('{"topic": null, "data": 1}', "topic is a string"),
        ('{"topic": "a/*", "data": 1}', "'a/\\*' is not a topic"),
        ('{"topic": "\\u20ac", "data": 1}', "is not a topic"),
        ('{"topic": "t", "data": 1, "titel": "x"}', "'titel' is not a member of a message"),
        ('{"topic": "t", "data": 1, "content_type": "x"}', "'content_type' is not a member"),
        ('{"topic": "t", "data": 1, "delay": "1h"}', "'delay' is not for a batch"),
        ('{"topic": "t", "data": 1, "key": "x"}', "'key' is not supported yet"),
        ('{"topic": "t", "data": 1, "data": 2}', "members .data, topic. is given twice"),
        ('{"topic": "t", "data": 1, "d\\u0061ta": 2}', "members .data, topic. is given twice"),
        ('{"topic": "t", "data": {"a": {"b": 1}}, "data": 2}', "members .data, topic. is given twice"),
        (
            '{"title": "a: b", "topic": "t", "title": "c", "data": {"d": "e:"}}',
            "title, topic. is given twice",
        ),
        ('{"topic": "t", "data": 1, "priority": 9}', "priority is 1"),
        ('{"topic": "t", "data": 1, "priority": 1.5}', "priority is 1"),
        ('{"topic": "t", "data": 1, "priority": 3.0}', "priority is 1"),
        ('{"topic": "t", "data": 1, "priority": 1e0}', "priority is 1"),
        ('{"topic": "t", "data": 1, "tags": "a,b"}', "tags is a list"),
        ('{"topic": "t", "data": 1, "title": "a\\u0000"}', "NUL"),
    ],
)
@pytest.mark.parametrize("content_type", [JSON, NDJSON])
def test_one_bad_message_refuses_the_batch_and_is_named_by_its_place(bad, because, content_type):
    body = f"[{GOOD}, {bad}, {GOOD}]" if content_type == JSON else f"{GOOD}\n\n{bad}\n{GOOD}"
    with pytest.raises(InvalidMessage, match=rf"^Message 1 of the batch \(counted from 0\): .*{because}"):
        parse_batch(body.encode(), content_type)


@pytest.mark.parametrize(
    ("body", "because"),
    [
        ("", "it is empty"),
        ("{}", "A batch is a JSON array of messages"),
        (GOOD, "A batch is a JSON array of messages"),
        (f"[{GOOD}", "it ends too early"),
        (f"[{GOOD},]", r"trailing comma in array \(byte 27\)"),
        (f"[{GOOD} {GOOD}]", r"expected ',' or '\]' \(byte 27\)"),
        ("[,]", r"invalid character \(byte 1\)"),
        ("[1]", r"Message 0 of the batch \(counted from 0\): Each message is a JSON object"),
        (f"[{GOOD}, null]", r"Message 1 of the batch \(counted from 0\): Each message is a JSON object"),
        (f"[{GOOD}] x", "more text after the value"),
        ('[{"topic": "t", "data": NaN}]', r"NaN is not JSON \(byte 24\)"),
        ('[{"topic": "t", "data": 1, "priority": NaN}]', "NaN is not JSON"),
        ('[{"topic" "t"}]', r"expected ':' \(byte 10\)"),
        ("[{topic: 1}]", r"expected '\"' \(byte 2\)"),
        ('[{"topic": "t",}]', r"trailing comma in object \(byte 15\)"),
        ('[{"topic": "t" "data": 1}]', r"expected ',' or '\}' \(byte 15\)"),
        ('[{"topic": "t", "data": }]', r"invalid character \(byte 24\)"),
        ('[{"topic": "t", "data": ' + "[" * 100_000, "nested too deeply"),
        ('[{"topic": ' + "[" * 100_000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("\ufeff[]", "byte order mark"),
    ],
)
def test_a_batch_that_is_no_json_is_refused_with_the_place(body, because):
    with pytest.raises(InvalidJSON, match=because):
        parse_batch(body.encode(), JSON)


@pytest.mark.parametrize(
    ("data", "because"),
    [
        ('{"a": "\\ud800"}', "surrogate has no partner"),
        ("1e400", "number 1e400 of this JSON is too large"),
        ("9" * 401, "has 401 digits"),
        ("[" * 61 + "]" * 61, "nested too deeply: at most 60 levels"),
        ("[" * 900 + "]" * 900, "nested too deeply"),
    ],
    ids=["surrogate", "double", "digits", "61 levels", "900 levels"],
)
@pytest.mark.parametrize("content_type", [JSON, NDJSON])
def test_data_that_not_every_reader_can_read_is_refused(data, because, content_type):
    bad = f'{{"topic": "t", "data": {data}}}'
    body = f"[{GOOD}, {bad}]" if content_type == JSON else f"{GOOD}\n{bad}"
    with pytest.raises(InvalidJSON, match=because) as refused:
        parse_batch(body.encode(), content_type)
    if content_type == NDJSON:
        assert str(refused.value).startswith("Message 1 of the batch (counted from 0): ")


def test_data_may_be_as_deep_in_a_batch_as_alone():
    deep = b"[" * 60 + b"]" * 60
    assert batch(b'[{"topic": "t", "data": %b}]' % deep) == [("t", deep, None)]


@pytest.mark.parametrize(
    ("bad", "because"),
    [
        ("{", "it ends too early"),
        ("[]", "Each message is a JSON object"),
        (f"{GOOD} {GOOD}", "more text after the value"),
        ('{"topic": "t",', "it ends too early"),
    ],
)
def test_ndjson_that_is_no_json_is_refused_with_the_place(bad, because):
    with pytest.raises(InvalidJSON, match=rf"^Message 1 of the batch \(counted from 0\): .*{because}"):
        parse_batch(f"{GOOD}\n{bad}\n{GOOD}".encode(), NDJSON)


def test_a_huge_number_in_the_wrong_place_is_refused_in_plain_words():
    with pytest.raises(InvalidJSON, match="A number of this JSON has 5000 digits; at most 400"):
        parse_batch(b'[{"topic": "t", "data": 1, "priority": ' + b"9" * 5000 + b"}]", JSON)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60).map(lambda tail: b'[{"topic": "t", "data": ' + tail), st.sampled_from([JSON, NDJSON]))
def test_whatever_comes_a_batch_is_taken_or_refused(body, content_type):
    with suppress(InvalidJSON, InvalidMessage):
        parse_batch(body, content_type)


def test_a_member_given_twice_is_refused_without_building_the_data():
    body = b'[{"topic": "t", "topic": "t", "data": [' + b",".join([b"{}"] * 300_000) + b"]}]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessage, match="given twice"):
            parse_batch(body, JSON)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()


MANY = 100_000


@pytest.mark.parametrize(
    ("body", "content_type", "because"),
    [
        (b"[" + b"10," * MANY + b"10]", JSON, "at most 1000 messages"),
        (b"10\n" * MANY, NDJSON, "at most 1000 messages"),
        (b"[{" + b",".join(b'"%d":1' % n for n in range(MANY)) + b"}]", JSON, "'0' is not a member of a message"),
        (b'[{"topic":"t","data":1,"tags":[' + b'"ab",' * MANY + b'""]}]', JSON, "tags is too long"),
        (b'[{"data":1,"topic":[' + b'"ab",' * MANY + b'""]}]', JSON, "topic is too long"),
    ],
    ids=["elements", "lines", "members", "tags", "a topic that is none"],
)
def test_what_is_refused_takes_little_more_than_its_size(body, content_type, because):
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessage, match=because):
            parse_batch(body, content_type)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(body)
