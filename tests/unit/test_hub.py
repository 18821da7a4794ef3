"""The hub against a naive model, and what a wake costs."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from notifier.core import hub as hub_module
from notifier.core import patterns as module
from notifier.core.hub import Hub
from notifier.core.topics import TopicList


def found(hub, topic):
    return [group for group in hub.groups(topic) if group]


segments = st.sampled_from(["a", "b", "c"])
topics = st.lists(segments, min_size=1, max_size=3).map("/".join)
patterns = st.builds(
    lambda head, last: "/".join([*head, last]),
    st.lists(st.one_of(st.just("*"), segments), max_size=2),
    st.sampled_from(["*", "**"]),
)
lists = st.lists(st.one_of(topics, patterns), min_size=1, max_size=4).map(TopicList)


class HubModel(RuleBasedStateMachine):
    """Polls come and go; `groups` always finds exactly those that match."""

    parked = Bundle("parked")

    def __init__(self):
        super().__init__()
        self.hub = Hub()
        self.model = {}
        self.serial = 0

    @rule(target=parked, topics=lists)
    def park(self, topics):
        self.serial += 1
        group = self.hub.park(topics, self.serial)
        assert self.serial in group.parked
        assert group.topics == topics
        self.model[self.serial] = topics
        return self.serial, group

    @rule(poll=consumes(parked))
    def forget(self, poll):
        serial, group = poll
        assert self.hub.forget(group, serial)
        assert not self.hub.forget(group, serial)
        del self.model[serial]

    @rule(topic=topics)
    def wake(self, topic):
        matching = set(found(self.hub, topic))
        assert {serial for group in matching for serial in group.parked} == {
            serial for serial, listed in self.model.items() if listed.matches(topic)
        }
        assert all(group.topics.matches(topic) for group in matching)

    @invariant()
    def all_are_counted(self):
        groups = self.hub.all_groups()
        assert len(self.hub) == len(self.model)
        assert sorted(serial for group in groups for serial in group.parked) == sorted(self.model)
        assert len({group.topics for group in groups}) == len(groups)

    def teardown(self):
        for group in self.hub.all_groups():
            for serial in list(group.parked):
                self.hub.forget(group, serial)
        assert not self.hub._groups
        assert not self.hub._exact
        assert not self.hub._patterns


TestHub = HubModel.TestCase
TestHub.settings = settings(deadline=None, max_examples=100, stateful_step_count=30)


def test_polls_of_equal_lists_share_a_group_in_the_order_they_came():
    hub = Hub()
    first = hub.park(TopicList(["a", "b"]), "first")
    assert hub.park(TopicList(["b", "a"]), "second") is first
    assert list(first.parked) == ["first", "second"]
    assert hub.park(TopicList(["a"]), "third") is not first


def test_lists_that_stay_are_found_while_others_come_and_go():
    hub = Hub()
    lists = [[f"a/{n}", "a/*", "*/b", "a/**", "a/b"] for n in range(20)]
    groups = [hub.park(TopicList(items), n) for n, items in enumerate(lists)]
    seen = set()
    for n, group in enumerate(hub.groups("a/b")):
        if group:
            seen.add(group)
        if n < 10:
            hub.forget(groups[2 * n], 2 * n)
            hub.park(TopicList([f"c/{n}", "a/b", "a/*"]), f"new {n}")
    assert set(groups[1::2]) <= seen


def test_a_poll_that_comes_back_to_a_forgotten_list_is_found():
    hub = Hub()
    old = hub.park(TopicList(["a/*"]), "old")
    assert hub.forget(old, "old")
    hub.park(TopicList(["a/*"]), "new")
    assert not hub.forget(old, "old")
    assert [list(group.parked) for group in found(hub, "a/b")] == [["new"]]


lookups = []


class Counted(dict):
    """A dictionary that notes what is looked up in it."""

    def get(self, key, default=None):
        lookups.append(key)
        return super().get(key, default)

    def __contains__(self, key):
        lookups.append(key)
        return super().__contains__(key)


def work_of_a_wake(monkeypatch, unrelated):
    """How many look-ups find the polls for one topic among `unrelated` topics and as many patterns of ten shapes."""

    class CountedNode(module._Node):
        def __init__(self):
            super().__init__()
            self.children = Counted()

    monkeypatch.setattr(module, "_Node", CountedNode)
    hub = Hub()
    hub._exact = Counted()
    for n in range(unrelated):
        hub.park(TopicList([f"other/{n}", f"orders/{n}/x"]), f"topic {n}")
        hub.park(TopicList([f"other{n}/*"]), f"one level {n}")
        hub.park(TopicList([f"*/other{n}"]), f"last {n}")
        hub.park(TopicList([f"other{n}/**"]), f"all levels {n}")
        hub.park(TopicList([f"orders/*/{n}", f"orders/42/{n}/**"]), f"deeper {n}")
    for wanted in (["orders/42"], ["orders/*"], ["orders/**", "x"], ["*/42"]):
        hub.park(TopicList(wanted), ",".join(wanted))
    lookups.clear()
    waiting = sorted(poll for group in found(hub, "orders/42") for poll in group.parked)
    assert waiting == ["*/42", "orders/*", "orders/**,x", "orders/42"]
    return len(lookups)


def test_a_wake_costs_the_same_among_ten_thousand_unrelated_topics_and_patterns(monkeypatch):
    assert work_of_a_wake(monkeypatch, 5000) == work_of_a_wake(monkeypatch, 1) < 40


def test_a_wake_yields_as_many_groups_as_match_and_none_of_the_others():
    hub = Hub()
    for n in range(10_000):
        hub.park(TopicList([f"topic/{n}"]), n)
    for n in range(1000):
        hub.park(TopicList([f"pattern/{n}/*"]), -n - 1)
    assert [list(group.parked) for group in found(hub, "topic/42")] == [[42]]
    assert [list(group.parked) for group in found(hub, "pattern/42/x")] == [[-43]]
    assert found(hub, "elsewhere") == []


def test_who_waits_is_told_by_item_and_within_bounds(monkeypatch):
    hub = Hub()
    for name, items in enumerate((["a"], ["a"], ["a", "b/*"], ["c"])):
        hub.park(TopicList(items), name)
    assert hub.waiting() == ([("a", 3), ("b/*", 1), ("c", 1)], 4, True)
    monkeypatch.setattr(hub_module, "MAX_WAITING", 1)
    assert hub.waiting() == ([("a", 3)], 4, False)
    monkeypatch.setattr(hub_module, "MAX_WAITING", 1000)
    monkeypatch.setattr(hub_module, "MAX_LOOKED_AT", 2)
    assert hub.waiting() == ([("a", 2)], 4, False)  # the list of two is one too many
