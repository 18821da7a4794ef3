"""Cursors, and which life of the database they belong to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.core.cursors import Epoch, Epochs, parse_cursor
from notifier.core.errors import InvalidCursor

LOST = Epochs.MAX_LOST


@pytest.mark.parametrize("text", ["0", "1", "41", "1000000000000000000", str(2**63 - 1)])
def test_a_cursor_is_a_decimal(text):
    assert parse_cursor(text) == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "01",
        "-1",
        "+1",
        "1.0",
        "1e3",
        " 1",
        "1 ",
        "1\n",
        "1_000",
        "0x1",
        "٣",
        "¹",
        "a",
        "latest",
        "9" * 19,
        "1" * 20,
    ],
)
def test_anything_else_is_refused_and_the_sentence_says_what_to_send(text):
    with pytest.raises(InvalidCursor, match="send back the `cursor` of the last response, or 0"):
        parse_cursor(text)


def test_a_refusal_quotes_only_the_beginning():
    with pytest.raises(InvalidCursor) as refused:
        parse_cursor("9" * 5000)
    assert len(str(refused.value)) < 150


ONE_LIFE = Epochs([Epoch(1000, None)])
TWO_LIVES = Epochs([Epoch(10**12, None), Epoch(1000, 5000)])


@pytest.mark.parametrize(
    ("epochs", "cursor", "sure"),
    [
        (ONE_LIFE, 1000, 1000),  # the position before its first id
        (ONE_LIFE, 1001, 1001),
        (ONE_LIFE, 10**15, 10**15),  # perhaps from a process that is ahead of this one: not for us to say
        (ONE_LIFE, 999, 0),  # of another database
        (ONE_LIFE, 1, 0),
        (TWO_LIVES, 1000, 1000),
        (TWO_LIVES, 5000, 5000),
        (TWO_LIVES, 5001, 5000),  # lost with the end of the first life
        (TWO_LIVES, 5000 + LOST, 5000),
        (TWO_LIVES, 5001 + LOST, 0),  # too far behind that end: of another database
        (TWO_LIVES, 10**12 - 1, 0),
        (TWO_LIVES, 10**12, 10**12),
        (Epochs([]), 5, 0),
    ],
)
def test_a_cursor_is_sure_up_to_where_its_epoch_issued_ids(epochs, cursor, sure):
    assert epochs.sure(cursor) == sure


@st.composite
def lives(draw):
    """Epochs as the database makes them: each begins above all that was issued before."""
    found, start = [], 0
    for last in draw(st.lists(st.integers(0, 50), max_size=4)):
        start += draw(st.integers(1, 2 * LOST))
        found.append(Epoch(start, start + last))
        start += last
    return [*found, Epoch(start + draw(st.integers(1, 2 * LOST)), None)]


@settings(deadline=None)
@given(lives(), st.data())
def test_what_is_sure_was_issued_here_and_nothing_issued_here_lies_between(epochs, data):
    edges = [edge for epoch in epochs for edge in epoch if edge is not None]
    cursor = max(1, data.draw(st.sampled_from(edges)) + data.draw(st.integers(-60, 60)))
    sure = Epochs(epochs).sure(cursor)
    if any(start <= cursor and (last is None or cursor <= last) for start, last in epochs):
        assert sure == cursor
    elif sure:
        assert any(sure == last for _, last in epochs)
        # ... of which the ids are start + 1 to last:
        assert not any(max(start, sure) < min(last or cursor, cursor) for start, last in epochs)


def test_the_same_epochs_are_equal_in_any_order():
    assert Epochs([Epoch(1, 2), Epoch(5, None)]) == Epochs([Epoch(5, None), Epoch(1, 2)])
    assert Epochs([Epoch(1, 2), Epoch(5, None)]) != Epochs([Epoch(5, None)])
