"""The matcher: which patterns match a topic, and which cover a pattern."""

import sys
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.patterns import Patterns

# Topics have one letter more than patterns, as there is always another: `*` is not the same as `a` and `b` together.
# And they may be longer by one segment, so that `**` is not the same as so many `*`.
LETTERS = "ab"
TOPICS = ["/".join(segments) for length in range(1, 5) for segments in product(LETTERS + "z", repeat=length)]

patterns = st.builds(
    lambda head, last: "/".join([*head, last]),
    st.lists(st.sampled_from([*LETTERS, "*"]), max_size=2),
    st.sampled_from([*LETTERS, "*", "**"]),
)
lists = st.lists(patterns, max_size=6)


def fits(pattern, topic):
    """The grammar, told another way: `*` is one whole segment, `**` one or more."""
    head, segments = pattern.split("/"), topic.split("/")
    if head[-1] == "**":
        head[-1:] = ["*"] * max(1, len(segments) - len(head) + 1)
    return len(head) == len(segments) and all(map(lambda one, other: one in ("*", other), head, segments))


def found(tree, item):
    return [value for value in tree.find(item) if value is not None]


def made_of(items):
    return Patterns((item, item) for item in items)


@given(lists)
def test_a_topic_is_matched_by_the_patterns_that_fit_it(items):
    tree = made_of(items)
    for topic in TOPICS:
        fitting = sorted({item for item in items if fits(item, topic)})
        assert sorted(found(tree, topic)) == fitting
        assert tree.matches(topic) == bool(fitting)


@given(patterns, patterns)
def test_one_pattern_covers_another_if_it_matches_every_topic_that_the_other_matches(wide, narrow):
    assert made_of([wide]).matches(narrow) == all(fits(wide, topic) for topic in TOPICS if fits(narrow, topic))


@given(lists, patterns)
def test_several_patterns_cover_what_one_of_them_covers(items, narrow):
    covering = {item for item in items if made_of([item]).matches(narrow)}
    assert set(found(made_of(items), narrow)) == covering
    assert made_of(items).matches(narrow) == bool(covering)


@pytest.mark.parametrize(
    ("wide", "covered", "others"),
    [
        ("**", ["a", "a/b", "*", "**", "*/a", "a/**"], []),
        ("*", ["a", "*"], ["**", "a/b", "*/a"]),
        ("a/**", ["a/b", "a/b/c", "a/*", "a/**", "a/*/**"], ["a", "aa/b", "*", "**", "*/b", "*/**"]),
        ("a/*", ["a/b", "a/*"], ["a", "a/**", "*/b", "a/*/*", "a/b/c"]),
        ("*/b", ["a/b", "*/b"], ["b", "a/*", "*/*", "*/**"]),
        ("*/b/**", ["a/b/c", "a/b/**", "*/b/*"], ["*/b", "a/**", "*/**", "**"]),
        ("a/b", ["a/b"], ["a/*", "*/b", "**"]),
    ],
)
def test_what_is_covered(wide, covered, others):
    assert [item for item in covered + others if made_of([wide]).matches(item)] == covered


def test_there_is_no_union_of_patterns():
    assert not made_of(["a", "b/**", "*/*"]).matches("**")
    assert not made_of(["*", "*/**"]).matches("**")


@given(lists, lists, st.randoms())
def test_what_was_removed_leaves_nothing_behind(items, others, random):
    tree = Patterns((item, "stays") for item in others)
    pairs = [(item, n) for n, item in enumerate(items)]
    for pair in pairs:
        tree.add(*pair)
    random.shuffle(pairs)
    for pair in pairs:
        tree.remove(*pair)
    for topic in TOPICS:
        assert found(tree, topic) == ["stays"] * len({item for item in others if fits(item, topic)})
    for item in set(others):
        tree.remove(item, "stays")
    assert not tree
    assert not tree._root.children


def test_only_what_was_added_can_be_removed():
    tree = Patterns([("a/*", 1)])
    for pair in [("a/*", 2), ("a/b", 1), ("a", 1), ("b", 1)]:
        with pytest.raises(KeyError):
            tree.remove(*pair)
    assert found(tree, "a/b") == [1]


def steps(tree, item):
    """How many lines of the walk are run."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        tree.matches(item)
    finally:
        sys.settrace(before)
    return count


def test_no_input_takes_longer_than_to_look_at_each_segment_once():
    every_way = ["/".join(way) for way in product("*a", repeat=6)]
    tree = made_of([*every_way, "/".join("*a" * 64), "/".join("a*" * 64), "/".join("*" * 128)])
    size = 2**7 + 3 * 128  # nodes
    for item in ["/".join("a" * 128), "/".join("*" * 128), "/".join("*" * 127) + "/**", "/".join("a" * 6)]:
        assert steps(tree, item) <= 8 * size


def test_what_begins_like_no_pattern_costs_nothing():
    def tree(count):
        return made_of([f"other/{n}/*" for n in range(count)] + [f"*/{n}" for n in range(count)] + ["a/**"])

    assert steps(tree(10), "a/b") == steps(tree(2000), "a/b")
