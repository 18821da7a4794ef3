"""Parts of JSON are those that a whole reading gives, and take little memory."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.partial_json import UnknownMember, elements, members
from notifier.core.webhooks.templates import look_up

NAMES = ["a", "b", "é", "a`b", "", "a.b", "\\", "a\nb"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
STEPS = st.lists(st.sampled_from([*NAMES, "0", "1", "2", "-1", "-2", "99", "100", "1000"]), min_size=1, max_size=4)


def at(value: Any, path: list[str]) -> Any:
    for step in path:
        try:
            value = value[step] if isinstance(value, dict) else value[int(step)] if isinstance(value, list) else None
        except (KeyError, IndexError, ValueError):
            return None
    return value


@given(VALUES, STEPS)
def test_what_is_looked_up_is_what_is_there(value: Any, path: list[str]) -> None:
    there = at(value, path)
    expected = "" if there is None or isinstance(there, list | dict) else there
    found = look_up(json.dumps(value).encode(), path)
    assert found == (expected if isinstance(expected, str) else json.dumps(expected))


def test_of_several_members_of_a_name_the_last_counts() -> None:
    assert members(b'{"a": 1, "b": 2, "a": 3, "c": 4}', ("a", "b", "d")) == {"a": b"3", "b": b"2"}


def test_another_member_is_told() -> None:
    with pytest.raises(UnknownMember, match=r"^x`y$"):
        members(b'{"a": 1, "x`y": 2}', ("a",), only=True)


def test_no_more_elements_are_kept_than_are_asked_for() -> None:
    assert elements(b'[1, "a", {}, []]', 3) == [b"1", b'"a"', b"{}"]
    assert elements(b"[null]", 3) == [b"null"]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (b"{" + b",".join(b'"%d":1' % n for n in range(100_000)) + b',"a":2}', ["a"]),
        (b'{"a":[2,' + b",".join(b"%d" % n for n in range(100_000)) + b"]}", ["a", "0"]),
    ],
    ids=["members", "elements"],
)
def test_a_value_is_looked_up_in_little_memory(document: bytes, path: list[str]) -> None:
    tracemalloc.start()
    try:
        assert look_up(document, path) == "2"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(document)
