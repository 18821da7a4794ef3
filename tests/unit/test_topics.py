"""Topics, patterns and lists of them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.core.errors import InvalidTopic
from notifier.core.topics import TopicList, check_topic

segments = st.sampled_from(["a", "b", "ab", "a.b", "a+b", "aXb", "-", "0", ":@=_"])
topics = st.lists(segments, min_size=1, max_size=4).map("/".join)
patterns = st.builds(
    lambda head, last: "/".join([*head, *last]),
    st.lists(st.one_of(st.just("*"), segments), max_size=3),
    st.sampled_from([["*"], ["**"], ["*", "a"], ["*", "a+b"], ["*", "*"]]),
)


def fits(item, topic):
    """The grammar of WIRE, segment by segment: what `matches` must agree with."""
    wanted, given = item.split("/"), topic.split("/")
    if wanted[-1] == "**":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


# Topics


@pytest.mark.parametrize(
    "topic", ["a", "orders/42", "A-Z_a-z.0:9@=+-", "...", "a/.../b", ".a", "a..", "-", "x" * 255, "/".join("x" * 128)]
)
def test_a_topic_is_accepted_as_it_is(topic):
    assert check_topic(topic) == topic


@pytest.mark.parametrize(
    ("topic", "because"),
    [
        ("", "cannot be empty"),
        ("/", "segments separated by /"),
        ("/a", "segments separated by /"),
        ("a/", "segments separated by /"),
        ("a//b", "segments separated by /"),
        (".", r"no segment may be \. or \.\."),
        ("..", r"no segment may be"),
        ("a/../b", r"no segment may be"),
        ("a/.", r"no segment may be"),
        ("x" * 256, "at most 255 characters; this one has 256"),
        ("a b", "letters, digits and"),
        ("a,b", "letters, digits and"),
        ("a*", "letters, digits and"),
        ("a/*", "letters, digits and"),
        ("a%2Fb", "letters, digits and"),
        ("a\n", "letters, digits and"),
        ("a\x00", "letters, digits and"),
        ("café", "letters, digits and"),
        ("٣", "letters, digits and"),
        ("\u212a", "letters, digits and"),  # the Kelvin sign, which case-insensitive patterns take for a k
    ],
)
def test_an_invalid_topic_is_refused_with_the_reason(topic, because):
    with pytest.raises(InvalidTopic, match=because):
        check_topic(topic)


# Patterns


@pytest.mark.parametrize("pattern", ["*", "**", "*/a", "a/*", "a/**", "*/*", "*/**", "a/*/b", "*/" * 127 + "*"])
def test_a_pattern_is_accepted(pattern):
    assert TopicList([pattern]).patterns == (pattern,)


@pytest.mark.parametrize(
    "pattern",
    ["a*", "*a", "***", "a/b*", "**/a", "a/**/b", "/*", "*/", "*//a", "../*", "*/.", "a b/*", "*/" * 127 + "**"],
)
def test_a_star_in_the_wrong_place_or_a_bad_segment_is_refused(pattern):
    with pytest.raises(InvalidTopic):
        TopicList([pattern])


def test_the_refusal_says_how_stars_are_used():
    with pytest.raises(
        InvalidTopic, match=r"'orders\*' is not a pattern: \* stands for one whole segment, \*\* at the end"
    ):
        TopicList(["orders*"])


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*", ["a", "a.b"], ["a/b"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("a/*", ["a/b", "a/.b"], ["a", "a/b/c", "b/a", "aa/b"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "aa/b"]),
        ("*/b", ["a/b"], ["b", "a/a/b"]),
        ("a/*/c", ["a/b/c"], ["a/c", "a/b/b/c"]),
        ("a.b/*", ["a.b/c"], ["aXb/c"]),
        ("a+b/*", ["a+b/c"], ["aab/c", "ab/c"]),
    ],
)
def test_a_pattern_matches_whole_segments(pattern, matching, others):
    listed = TopicList([pattern])
    assert [topic for topic in matching + others if listed.matches(topic)] == matching


@settings(deadline=None)
@given(st.lists(st.one_of(topics, patterns), min_size=1, max_size=5), st.lists(topics, max_size=20))
def test_a_list_matches_what_one_of_its_items_matches(items, candidates):
    listed = TopicList(items)
    for topic in candidates:
        assert listed.matches(topic) == any(fits(item, topic) for item in items)


@settings(deadline=None)
@given(st.lists(patterns, min_size=1, max_size=5), topics)
def test_the_ranges_of_a_list_hold_every_topic_that_its_patterns_match(items, topic):
    listed = TopicList(items)
    if listed.matches(topic):
        assert any(low <= topic < high for low, high in listed.ranges)


@settings(deadline=None)
@given(st.lists(patterns, min_size=1, max_size=5), topics)
def test_the_regular_expressions_of_a_list_match_what_its_patterns_match(items, topic):
    listed = TopicList(items)
    assert any(re.search(regex, topic) for regex in listed.regexes) == listed.matches(topic)


# Lists


def test_equal_lists_are_one_however_they_are_written():
    one, other = TopicList(["b", "a", "c/*", "a"]), TopicList(["c/*", "a", "b"])
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1
    assert one.exact == ("a", "b")
    assert one != TopicList(["a", "b"])
    assert one != "a,b,c/*"


def test_a_list_has_at_most_a_hundred_different_items():
    hundred = [f"t{n}" for n in range(100)]
    assert len(TopicList(hundred * 2).exact) == 100
    with pytest.raises(InvalidTopic, match="at most 100 topics and patterns; this one has 101"):
        TopicList([*hundred, "*"])


@pytest.mark.rule("T-4")
def test_the_patterns_of_a_list_have_at_most_four_hundred_segments_together():
    four = [f"{n}/*/b/*" for n in range(100)]
    assert len(TopicList(four).patterns) == 100
    assert len(TopicList([*four[:99], "*/" * 3 + "**"]).patterns) == 100
    with pytest.raises(InvalidTopic, match="at most 400 segments together; these have 401"):
        TopicList([*four[:99], "*/" * 4 + "**"])
    topics = ["/".join("a" * 128)] * 99  # topics are not walked
    assert len(TopicList([*topics, "*"]).exact) == 1


@pytest.mark.parametrize(
    ("path", "exact", "some_patterns"),
    [
        ("a,b", ("a", "b"), ()),
        ("a%2Cb", ("a", "b"), ()),
        ("orders%2F42", ("orders/42",), ()),
        ("orders%2f42,a/%2A", ("orders/42",), ("a/*",)),
        ("a%2Bb+c", ("a+b+c",), ()),  # a plus is a plus in a path
        ("%61", ("a",), ()),
    ],
)
def test_a_path_is_decoded_once_and_then_split(path, exact, some_patterns):
    listed = TopicList.parse(path)
    assert (listed.exact, listed.patterns) == (exact, some_patterns)


@pytest.mark.parametrize(
    "path", ["", ",", "a,", ",a", "a,,b", "a%252Fb", "caf%C3%A9", "%FF", "%zz", "%", "a%00", "a%2C"]
)
def test_a_path_that_holds_no_list_is_refused(path):
    with pytest.raises(InvalidTopic):
        TopicList.parse(path)
