"""One definition of JSON that every reader can read: what is refused and why, and that the readers agree."""

import json
import random
import shutil
import subprocess
import threading
import tracemalloc

import msgspec
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.core import strict_json
from notifier.core.errors import InvalidJSON
from notifier.core.strict_json import check_json, is_json, outside_strings

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"true",
        b'""',
        b"0",
        b"-0.0e-0",
        b"[]",
        b"{}",
        b' \t\r\n{"a" : [1, 2]}\n ',
        b'{"a": 1, "a": 2}',
        b'"\\ud83d\\ude00 \\u0000 \\uffff"',
        '"\N{GRINNING FACE} \N{LINE SEPARATOR} \x7f \ufeff"'.encode(),
        b"1.7976931348623157e308",
        b"-1.7976931348623157E+308",
        b"1e-400",
        b"0e999",
        b"1e0000308",
        b"0." + b"1" * 399,
        b"1" * 308,
        b"12345678901234567890.123456789012345678901234567890",
        b"[" * 60 + b"]" * 60,
        b'{"":' * 60 + b"1" + b"}" * 60,
        b"[" + b"[{}]," * 100 + b"[]]",
        b'["' + b"[" * 100 + b'\\"' + b"{" * 100 + b'\\\\", "' + b"9" * 500 + b' 1e999", [[]]]',
    ],
)
def test_json_that_every_reader_can_read_is_taken(body):
    check_json(body)
    read_by_all([body])


@pytest.mark.parametrize(
    ("body", "because"),
    [
        (b"", "it is empty"),
        (b"  ", "it is empty"),
        (b"{", "it ends too early"),
        (b"nul", "it ends too early"),
        (b'"abc', "it ends too early"),
        (b"{'a': 1}", r"expected '\"' \(byte 1\)"),
        (b"{1: 1}", r"expected '\"' \(byte 1\)"),
        (b'{"a" 1}', r"expected ':' \(byte 5\)"),
        (b"[1 2]", r"expected ',' or '\]' \(byte 3\)"),
        (b"[1}", r"expected ',' or '\]' \(byte 2\)"),
        (b"[1, ]", r"trailing comma in array \(byte 4\)"),
        (b'{"a": 1,}', r"trailing comma in object \(byte 8\)"),
        (b'["\\\\ud800", ]', "trailing comma"),
        (b"[" + b"[]," * 1000, "it ends too early"),
        (b"[" + b"[]," * 1000 + b"]]", "trailing comma"),
        (b"]" * 1000, "invalid character"),
        (b'[x "' + b"[" * 50 + b"]" * 50, "invalid character"),
        (b"1 2", "more text after the value"),
        (b"[]]", "more text after the value"),
        (b"1\x00", "more text after the value"),
        (b"01", r"invalid number \(byte 1\)"),
        (b"1.", "invalid number"),
        (b"1e+", "invalid number"),
        (b"+1", "invalid character"),
        (b".5", "invalid character"),
        (b'"a\nb"', r"invalid character \(byte 2\)"),
        (b'"\x00"', r"invalid character \(byte 1\)"),
        (b'"\\x"', "invalid escaped character"),
        (b'"\\u12g4"', "invalid character in unicode escape"),
        (b"\x0c1", "invalid character"),
        ("\N{NO-BREAK SPACE}1".encode(), "invalid character"),
        ("\N{ARABIC-INDIC DIGIT THREE}".encode(), "invalid character"),
        (b"\xef\xbb\xbf{}", "must not begin with a byte order mark"),
        (b"NaN", r"NaN is not JSON \(byte 0\)"),
        (b"[Infinity]", r"Infinity is not JSON \(byte 1\)"),
        (b'{"a": -Infinity}', r"-Infinity is not JSON \(byte 6\)"),
        (b'"caf\xe9"', "must be UTF-8; byte 4 is not"),
        (b'"\xed\xa0\x80"', "must be UTF-8; byte 1 is not"),  # a surrogate
        (b'"\xc0\x80"', "must be UTF-8"),  # NUL, too long
        (b'"\xf4\x90\x80\x80"', "must be UTF-8"),  # beyond U+10FFFF
        ('{"a": 1}'.encode("utf-16"), "must be UTF-8"),
        (b'"\\ud800"', "surrogate has no partner"),
        (b'"\\uDC00"', "surrogate has no partner"),
        (b'["\\ud83d", "\\ude00"]', "surrogate has no partner"),
        (b'"\\ud83d \\ude00 ------"', "surrogate has no partner"),
        (b'"\\ud800\\ud800"', "surrogate has no partner"),
        (b'"\\ud800\\u0041"', "surrogate has no partner"),
        (b'{"\\udfff": 1}', "surrogate has no partner"),
        (b"1e309", "number 1e309 of this JSON is too large for a double"),
        (b"[-1.8e308]", "number 1.8e308 of this JSON is too large"),
        (b'{"a": 1e0400}', "too large"),
        (b"1e99999999999999999999", "too large"),
        (b"1" * 310 + b"e0", "too large"),
        (b"1" * 250 + b"e+99", "too large"),
        (b"9" * 309, "too large"),
        (b"1" * 401, "has 401 digits; at most 400"),
        (b"[0." + b"1" * 400 + b"]", "has 401 digits"),
        (b"1" * 200 + b"." + b"1" * 200 + b"e-1", "has 401 digits"),
        (b'"\\\\", 1e999'.join((b"[", b"]")), "too large"),
        (b"[" * 61 + b"]" * 61, "nested too deeply: at most 60 levels"),
        (b"[" + b"[]," * 100 + b'{"a":' * 60 + b"1" + b"}" * 60 + b"]", "nested too deeply"),
        (b'["\\\\\\"[[[", ' + b"[" * 60 + b"]" * 61, "nested too deeply"),
        (b"[" * 900 + b"]" * 900, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong_and_where(body, because):
    with pytest.raises(InvalidJSON, match=because):
        check_json(body)


# The readers


def read_by_all(bodies):
    """Each of `bodies` is read by the parsers of Python, and what they read can be written again."""
    for body in bodies:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
        orjson.loads(body)
        msgspec.json.encode(msgspec.json.decode(body))


numbers = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.builds(
        lambda a, b, e: "1" * a + ("." + "1" * b if b else "") + e,
        st.integers(1, 420),
        st.integers(0, 420),
        st.sampled_from(["", "e1", "E-30", "e+99", "e308", "e-308"]),
    ),
)
characters = st.sampled_from(
    [
        *("a", "[", "{", "}", "]", ":", ",", "9", "1e999", "\x1f", "\n", "\x7f", "\u20ac", "\U0001f600", "\ufeff"),
        *('\\"', "\\\\", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\\ude00", "\\ud800"),
    ]
)
strings = st.lists(characters, max_size=6).map(lambda parts: f'"{"".join(parts)}"')
leaves = st.one_of(numbers, strings, st.sampled_from(["null", "true", "false", "NaN", "-Infinity", "", " 1 ", "nul"]))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(strings, inner), max_size=3).map(lambda ms: f"{{{','.join(f'{n}:{v}' for n, v in ms)}}}"),
        st.tuples(st.integers(1, 70), inner).map(lambda deep: "[" * deep[0] + deep[1] + "]" * deep[0]),
    ),
    max_leaves=8,
).map(str.encode)
tokens = st.lists(
    st.sampled_from([*'[]{}:,"\\/eE+-.019 \n\ttfn', "\\u", "d8", "dc", '"a":', "null", "1e30", "\x00", "\u20ac"]),
    max_size=12,
).map(lambda parts: "".join(parts).encode())


def readable(body):
    """What `check_json` promises, by the parser of Python, slowly."""

    def constant(name):
        raise ValueError(name)

    def number(text):
        if float(text) in {float("inf"), float("-inf")} or sum(c.isdigit() for c in text) > 400:
            raise ValueError(text)

    def depth(value):
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    try:
        pairs = json.loads(body.decode(), parse_constant=constant, parse_int=number, parse_float=number)
        json.dumps(pairs, ensure_ascii=False).encode()
    except ValueError:
        return False
    return depth(pairs) <= 60


@settings(deadline=None, max_examples=500)
@given(st.one_of(values, tokens, st.binary(max_size=12)))
@example(b'{"\\ud800": 1, "a": 1}')
@example(b'["\\\\\\\\\\"", [1e400]]')
def test_what_is_taken_is_what_every_reader_can_read(body):
    taken = is_json(body)
    # A member given twice hides the first from this model.
    assert taken == readable(body) or (not taken and body.count(b'":') > 1)
    if taken:
        read_by_all([body])


def in_one_answer(seed):
    """300 odd values that `check_json` takes, in the shape of an answer."""
    pick = random.Random(seed)
    leaves = [
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"\\\\\\""',
        '"\u2028\ufeff\x7f"',
        "1e308",
        "-0",
        "0e999",
        "1e-999",
        "null",
    ]
    leaves += ["1" * 300, "0." + "3" * 390, "[" * 50 + "]" * 50, "9007199254740993"]

    def value(depth):
        if depth == 0 or pick.random() < 0.3:
            return pick.choice(leaves)
        inner = [value(depth - 1) for _ in range(pick.randint(0, 3))]
        if pick.random() < 0.5:
            return f"[{', '.join(inner)}]"
        members = [f'"{number}": {each}' for number, each in enumerate(inner)]
        return f"{{{', '.join(members)}}}"

    taken = [value(6).encode() for _ in range(300)]
    assert all(map(is_json, taken))
    return b'{"messages": [%b], "cursor": "1"}' % b", ".join(b'{"data": %b}' % body for body in taken)


@pytest.mark.all
@pytest.mark.parametrize(
    "reader",
    [
        ["jq", "-e", ".messages | length == 300"],
        ["node", "-e", "if (JSON.parse(require('fs').readFileSync(0)).messages.length != 300) process.exit(1)"],
    ],
    ids=["jq", "node"],
)
def test_other_programs_read_all_that_is_taken(reader):
    assert shutil.which(reader[0]), f"make test-all installs {reader[0]}"
    answer = in_one_answer(seed=8)
    read_by_all([answer])
    subprocess.run(reader, input=answer, check=True, stdout=subprocess.DEVNULL)


# How it works


def test_it_needs_little_stack_whatever_comes():
    """The threads of some systems have 128 KiB."""
    taken: list[bool] = []

    def check() -> None:
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")):
            taken.append(is_json(opening * 30 + b"1" + closing * 30))
            taken.append(is_json(opening * 100_000 + b"1" + closing * 100_000))
            taken.append(is_json(opening * 100_000))

    before = threading.stack_size(128 * 1024)
    try:
        thread = threading.Thread(target=check)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert taken == [True, False, False] * 3


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_strings_are_left_out_wherever_the_pieces_end(monkeypatch, chunk):
    monkeypatch.setattr(strict_json, "_CHUNK", chunk)
    text = rb'{"a\"[": ["", "\\", "x\\\"]", 1], "b": "\\\\"}'
    assert outside_strings(text) == b"{: [, , , 1], : }"
    assert outside_strings(text, brackets=True) == b"[[]]"


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_brackets_in_strings_do_not_count(monkeypatch, chunk):
    monkeypatch.setattr(strict_json, "_CHUNK", chunk)
    for text in (
        rb'["[", "]", "", "[[", {"}\"{": [1]}, "\\\\", "\\\"]"]',
        rb'["["  ,"]","\u005b["]',
        b'[["","]"],"[",""]',
    ):
        found = outside_strings(text).translate(bytes.maketrans(b"{}", b"[]"), b'" ,:1')
        assert outside_strings(text, brackets=True) == found
        assert is_json(text)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("number", [b"9" * 401, b"1e999", b"-1E+400", b"0." + b"1" * 400])
def test_a_number_that_is_too_large_is_found_wherever_the_pieces_end(monkeypatch, chunk, number):
    monkeypatch.setattr(strict_json, "_CHUNK", chunk)
    for before in range(8):
        assert not is_json(b"[" + b" " * before + number + b", 1]")
    assert is_json(b"[" + b"9" * 300 + b', "' + number + b'"]')


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 349_000 + b"1]",
        b"[" + b'"",' * 349_000 + b"1]",
        b"[" + b'"a",' * 262_000 + b"1]",
        b"[" + (b"[" * 59 + b"]" * 59 + b",") * 8800 + b"1]",
        b"[" + b"1e307," * 170_000 + b"1]",
        b"[" + b"9" * MIB + b"]",
        b'"' + b'\\"' * (MIB // 2) + b'"',
        b'"' + b"\\\\" * (MIB // 2) + b'"',
        b"[" * MIB,
    ],
    ids=["lists", "empty strings", "strings", "deep", "exponents", "digits", "escapes", "backslashes", "brackets"],
)
def test_a_hostile_body_of_a_megabyte_takes_little_memory(body):
    """Built as Python objects it would take forty times its size."""
    tracemalloc.start()
    try:
        is_json(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * MIB
