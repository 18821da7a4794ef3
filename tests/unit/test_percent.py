"""Percent-decoding: as urllib has it, but for the time that it takes."""

import sys
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.percent import unquote


@given(st.text(st.sampled_from("%%%04aFg/+\xe4"), max_size=30))
def test_it_decodes_as_urllib_does(text):
    assert unquote(text) == unquote(text.encode()) == unquote_to_bytes(text)


@pytest.mark.parametrize("text", ["%", "%4", "%%4g", "a"])
def test_what_is_no_escape_costs_no_step(text):
    count = 0

    def trace(_frame, _event, _):
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert unquote(text * 1000) == (text * 1000).encode()
    finally:
        sys.settrace(before)
    assert count < 20
