"""What a grant allows."""

import pytest

from notifier.core.grants import Grant


def test_a_grant_allows_what_its_patterns_match_or_cover_and_nothing_else():
    grant = Grant("one", publish=["jobs/*"], subscribe=["user/7/**", "news", "*/status"])
    assert (grant.publishes, grant.subscribes, grant.admin) == (True, True, False)
    assert [topic for topic in ("jobs/1", "jobs", "jobs/1/x", "news", "user/7/a") if grant.may_publish(topic)] == [
        "jobs/1"
    ]
    allowed = ["user/7/a", "user/7/a/b", "user/7/*", "user/7/**", "user/7/*/x", "news", "x/status", "*/status"]
    refused = ["user/7", "user/8/a", "user/*/a", "user/**", "news/*", "*", "**", "*/*", "jobs/1", "x/y/status"]
    assert [item for item in allowed + refused if grant.may_subscribe(item)] == allowed


def test_publishing_and_subscribing_are_allowed_apart():
    reader = Grant("reader", subscribe=["**"])
    writer = Grant("writer", publish=["**"])
    assert (reader.publishes, reader.may_publish("t"), reader.may_subscribe("**")) == (False, False, True)
    assert (writer.subscribes, writer.may_subscribe("t"), writer.may_publish("a/b")) == (False, False, True)


@pytest.mark.parametrize("item", ["t", "a/b", "*", "**", "a/**"])
def test_an_admin_may_do_everything(item):
    grant = Grant("admin", admin=True)
    assert grant.publishes
    assert grant.subscribes
    assert grant.may_subscribe(item)
    assert grant.may_publish("t")


def test_a_grant_is_alive_until_it_is_ended():
    grant = Grant("one", admin=True)
    assert grant.alive
    grant.end()
    assert not grant.alive
