"""What a grant allows."""

import pytest

from notifier.core.grants import Grant


def test_a_grant_allows_what_its_patterns_match_or_cover_and_nothing_else():
    grant = Grant("one", publish=["jobs/*"], subscribe=["user/7/**", "news", "*/status"])
    assert (grant.publishes, grant.subscribes, grant.admin) == (True, True, False)
    topics = ("jobs/1", "jobs", "jobs/1/x", "news", "user/7/a")
    assert [topic for topic in topics if not grant.may_not_publish([topic])] == ["jobs/1"]
    allowed = ["user/7/a", "user/7/a/b", "user/7/*", "user/7/**", "user/7/*/x", "news", "x/status", "*/status"]
    refused = ["user/7", "user/8/a", "user/*/a", "user/**", "news/*", "*", "**", "*/*", "jobs/1", "x/y/status"]
    assert [item for item in allowed + refused if not grant.may_not_subscribe([item])] == allowed


def test_publishing_and_subscribing_are_allowed_apart():
    reader = Grant("reader", subscribe=["**"])
    writer = Grant("writer", publish=["**"])
    assert (reader.publishes, reader.may_not_publish(["t"]), reader.may_not_subscribe(["**"])) == (False, "t", None)
    assert (writer.subscribes, writer.may_not_subscribe(["t"]), writer.may_not_publish(["a/b"])) == (False, "t", None)


def test_the_first_that_is_not_allowed_is_named():
    grant = Grant("one", publish=["a"], subscribe=["a", "b"])
    assert grant.may_not_publish(["a", "b", "c"]) == "b"
    assert grant.may_not_subscribe(["a", "b", "c/**", "d"]) == "c/**"
    assert grant.may_not_subscribe([]) is None


@pytest.mark.parametrize("item", ["t", "a/b", "*", "**", "a/**"])
def test_an_admin_may_do_everything(item):
    grant = Grant("admin", admin=True)
    assert grant.publishes
    assert grant.subscribes
    assert grant.may_not_subscribe([item]) is None
    assert grant.may_not_publish(["t"]) is None


def test_a_grant_is_alive_until_it_is_ended():
    grant = Grant("one", admin=True)
    assert grant.alive
    grant.end()
    assert not grant.alive
