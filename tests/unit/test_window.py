"""The window against naive models of what it promises."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.core import topic_names
from notifier.core import window as module
from notifier.core.messages import Message
from notifier.core.topics import TopicList
from notifier.core.window import OVERHEAD, TOPIC_OVERHEAD, Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
LISTS = [
    TopicList(items)
    for items in (["a"], ["a", "b/c"], ["*"], ["b/*", "a"], ["**"], ["b/*", "b/c", "**"], ["none"], ["no/*"])
]

# (how far the seq jumps, the topic, the size of the message)
logs = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["a", "b/c", "b/d", "e"]), st.integers(1, 30)), max_size=40
)


def log_of(steps, start=0):
    made, seq = [], start
    for jump, topic, size in steps:
        seq += jump
        made.append(Message(seq, topic, NOON, b"x" * size))
    return made


def filled(messages, chunk=5, **bounds):
    window = Window(**bounds)
    for at in range(0, len(messages), chunk):
        window.extend(messages[at : at + chunk])
    return window


def cost(messages):
    topics = {message.topic for message in messages}
    return sum(message.size + OVERHEAD for message in messages) + TOPIC_OVERHEAD * len(topics)


@pytest.fixture(autouse=True, scope="module")
def small_bounds():
    """Bounds that a test of forty messages runs into."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_SCAN", 7)
        patch.setattr(module, "NEAR", 2)
        patch.setattr(module, "LAST", 2)
        patch.setattr(module, "FEW", 3)
        patch.setattr(module, "FEW_TOPICS", 1)
        patch.setattr(module, "MAX_PICK", 3)
        patch.setattr(topic_names, "MANY_NEW", 1)
        patch.setattr(module, "MAX_RESPONSE", 500)
        yield


def test_an_empty_window_is_read_to_its_head():
    window = Window()
    window.reset(41)
    assert len(window) == 0
    assert window.read(LISTS[0], 41, 10) == ((), 41)
    assert window.read(LISTS[0], 50, 10) == ((), 50)  # a cursor from a process that is ahead


@settings(deadline=None)
@given(logs, st.integers(1, 20), st.integers(500, 5000))
def test_it_holds_the_newest_that_fit_and_everything_above_its_start(steps, max_count, max_bytes):
    messages = log_of(steps)
    window = filled(messages, max_count=max_count, max_bytes=max_bytes)
    kept = list(messages)
    while len(kept) > max_count or cost(kept) > max_bytes:
        kept.pop(0)
    assert len(window) == len(kept)
    assert window.head == (messages[-1].seq if messages else 0)
    assert window.start == (messages[len(messages) - len(kept) - 1].seq if len(kept) < len(messages) else 0)
    assert window.start <= window.head


@settings(deadline=None)
@given(logs, st.sampled_from(LISTS), st.integers(0, 60), st.integers(1, 5), st.integers(1, 40))
def test_reading_on_from_cursor_to_cursor_gives_every_match_once_and_in_order(steps, topics, after, limit, max_count):
    messages = log_of(steps)
    window = filled(messages, max_count=max_count)
    after = max(after, window.start)
    wanted = [message for message in messages if message.seq > after and topics.matches(message.topic)]
    found, cursor = [], after
    while True:
        part = window.read(topics, cursor, limit)
        assert part.cursor >= cursor
        assert len(part.messages) <= limit
        size = sum(message.size for message in part.messages)
        assert size <= module.MAX_RESPONSE or len(part.messages) == 1
        found += part.messages
        if part.cursor == cursor:
            break
        cursor = part.cursor
    assert found == wanted
    assert cursor == max(after, window.head)


@settings(deadline=None)
@given(logs, st.sampled_from(LISTS), st.integers(1, 10), st.integers(1, 40))
def test_the_newest_of_a_list_are_found_if_the_window_has_them(steps, topics, count, max_count):
    window = filled(log_of(steps), max_count=max_count)
    searched = [message for message in log_of(steps) if message.seq > window.start]
    kept = [message for message in searched if topics.matches(message.topic)]
    assert window.newest(topics, count) == (kept[-count].seq - 1 if len(kept) >= count else None)


def test_a_cut_by_limit_ends_at_the_last_message_and_not_at_the_head():
    window = filled(log_of([(1, "a", 1), (1, "a", 1), (1, "e", 1)]))
    assert window.read(TopicList(["a"]), 0, 1).cursor == 1
    assert window.read(TopicList(["a"]), 0, 2).cursor == 3  # all there is: read to the head
    assert window.read(TopicList(["a"]), 1, 1).cursor == 3


def test_a_message_larger_than_a_response_comes_alone():
    window = filled(log_of([(1, "a", 5), (1, "a", 500), (1, "a", 5)]))
    parts, cursor = [], 0
    while cursor < window.head:
        part = window.read(TopicList(["a"]), cursor, 10)
        parts.append([message.seq for message in part.messages])
        cursor = part.cursor
    assert parts == [[1], [2], [3]]


def test_a_message_larger_than_the_window_leaves_it_empty_but_moves_it_on():
    window = filled(log_of([(1, "a", 5), (1, "a", 5000)]), max_bytes=1000)
    assert (len(window), window.start, window.head) == (0, 2, 2)


def test_a_scan_that_is_cut_short_reports_how_far_it_came():
    # More topics than are looked at one by one, any of which `*/c` may match.
    window = filled(log_of([(1, f"e{n}", 1) for n in range(10)] + [(1, "b/c", 1)]))
    assert window.read(TopicList(["*/c"]), 0, 10) == ([], 7)
    assert [message.seq for message in window.read(TopicList(["*/c"]), 7, 10).messages] == [11]


def test_a_pattern_that_begins_like_few_topics_is_not_scanned_for():
    window = filled(log_of([(1, "b/c", 1)] + [(1, f"e{n}", 1) for n in range(100)]))
    before = window.looked
    assert [message.seq for message in window.read(TopicList(["b/*"]), 0, 10).messages] == [1]
    assert window.newest(TopicList(["b/*"]), 1) == 0
    assert window.looked - before < 10


@settings(deadline=None)
@given(logs, st.integers(0, 40), st.integers(1, 7), st.integers(500, 9000), st.sampled_from(LISTS), st.integers(1, 9))
def test_what_comes_before_is_added_until_it_is_full_and_then_is_as_if_it_had_been_there(
    steps, begin, portion, max_bytes, topics, count
):
    messages = log_of(steps)
    begin = min(begin, len(messages))
    window = Window(max_bytes=10**6)
    window.reset(messages[begin - 1].seq if begin else 0)
    window.extend(messages[begin:])
    window._max_bytes = max_bytes
    older, added = messages[:begin], True
    while older and added:
        part, older = older[-portion:], older[:-portion]
        added = window.prepend(part, older[-1].seq if older else 0, whole=not older)
    kept = [message for message in messages if message.seq > window.start]
    assert len(window) == len(kept)
    assert window.floor == window.start
    assert window.whole == (added and begin > 0)
    if added:
        assert kept == messages
    elif begin < len(messages):
        assert cost(kept[1:]) <= max_bytes or len(kept) == len(messages) - begin
    found, cursor = [], window.start
    while cursor < window.head:
        part = window.read(topics, cursor, 3)
        found += part.messages
        cursor = part.cursor
    wanted = [message for message in kept if topics.matches(message.topic)]
    assert found == wanted
    last = wanted[-count:]
    if len(last) == count or (window.whole and last):
        assert window.newest(topics, count, or_all=True) == last[0].seq - 1
    else:
        assert window.newest(topics, count, or_all=True) == (window.head if window.whole else None)
    window._max_bytes = 600
    window.extend([Message(window.head + 1, "z", NOON, b"")])
    assert not window.whole


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "a/b", "a/c", "a0", "b/c", "b/d/e"])), max_size=60),
    st.lists(st.sampled_from(["a/*", "b/**", "*", "**", "b/*/e"]), min_size=1),
    st.integers(0, 7),
)
def test_names_are_found_by_where_their_patterns_lie(steps, patterns, most):
    living = set()
    names = topic_names.TopicNames(living)
    ranges = TopicList(patterns).ranges
    for comes, name in steps:
        if comes and name not in living:
            living.add(name)
            names.add(name)
        elif not comes:
            living.discard(name)
        found = names.between(ranges, 100)
        wanted = {name for name in living if any(low <= name < high for low, high in ranges)}
        assert set(found) == wanted
        assert len(found) == len(wanted)
        assert (names.between(ranges, most) is None) >= (len(wanted) > most)


def test_names_that_left_are_forgotten_though_nobody_searches():
    """Where each order is a topic, and all polls are for one, they would be all topics that there ever were."""
    window = Window(max_count=10)
    window.reset(0)
    for seq in range(1, 1000):
        window.extend([Message(seq, f"t/{seq}", NOON, b"")])
        assert len(window._names) < 30
    assert set(window._names.between([("t/", "t0")], 30)) == {f"t/{seq}" for seq in range(990, 1000)}


def test_a_reset_forgets_everything():
    window = filled(log_of([(1, "a", 5)] * 5))
    window.reset(1000)
    assert (len(window), window.start, window.head) == (0, 1000, 1000)
    window.extend(log_of([(1, "a", 5)], start=1000))
    assert [message.seq for message in window.read(TopicList(["a"]), 1000, 10).messages] == [1001]
    assert window.newest(TopicList(["a"]), 2) is None


def test_a_list_of_many_patterns_is_scanned_in_smaller_pieces(monkeypatch):
    monkeypatch.setattr(module, "MAX_SCAN", 100)
    window = Window()
    window.extend(log_of([(1, f"other{n}", 1) for n in range(200)]))
    few, many = TopicList(["*/a"]), TopicList([f"*/a{n}/b/c" for n in range(100)])
    before = window.looked
    assert window.read(few, 0, 1).cursor == 100
    assert window.looked - before == 100
    assert 0 < window.read(many, 0, 1).cursor < 10
    assert window.looked - before <= 200


def test_the_search_for_the_newest_is_bounded_like_a_read(monkeypatch):
    monkeypatch.setattr(module, "MAX_SCAN", 100)
    window = Window()
    window.extend(log_of([(1, "a/b", 1), *[(1, f"other{n}", 1) for n in range(150)]]))
    assert window.newest(TopicList(["*/b"]), 1) is None  # for the table
    assert window.newest(TopicList(["other149"]), 1) == 150
