"""Handshakes: what is one is answered, and what is not is left alone."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.errors import BadRequest, Forbidden
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.handshakes import HANDSHAKES, allowed, answer
from notifier.core.webhooks.schemes import SCHEMES

SLACK = b'{"token": "x", "challenge": "3eZbrw1a", "type": "url_verification"}'
ZOOM = b'{"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}, "event_ts": 1}'


def ask(scheme, method="POST", body=b"", query="", headers=(), signed=False, secrets=("newest", "older"), **options):
    delivery = Delivery(headers, body, query.encode())
    return answer(method, scheme, secrets, options, delivery, signed=signed)


def mac(value):
    return hmac.digest(b"newest", value, hashlib.sha256)


def test_the_schemes_of_handshakes_exist():
    assert {scheme for row in HANDSHAKES for scheme in row.schemes} <= set(SCHEMES)


@pytest.mark.rule("W-14")
@pytest.mark.parametrize(
    ("scheme", "given", "reply"),
    [
        ("slack", {"body": SLACK, "signed": True}, b"3eZbrw1a"),
        ("none", {"body": SLACK, "signed": True}, b"3eZbrw1a"),
        ("none", {"body": b'{"challenge": "abc"}', "signed": True}, {"challenge": "abc"}),
        ("discord", {"body": b'{"type": 1, "id": "x"}', "signed": True}, {"type": 1}),
        (
            "zoom",
            {"body": ZOOM, "signed": True},
            {"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": mac(b"qgg8vlvZRS6UYooatFL8Aw").hex()},
        ),
        ("none", {"query": "validationToken=Validation%3a+Testing+1-2"}, b"Validation: Testing 1-2"),
        ("meta", {"method": "GET", "query": "hub.mode=subscribe&hub.challenge=1158201444"}, b"1158201444"),
        ("hmac", {"method": "GET", "query": "hub.mode=subscribe&hub.topic=x&hub.challenge=a%20b"}, b"a b"),
        (
            "x",
            {"method": "GET", "query": "crc_token=foo"},
            {"response_token": f"sha256={base64.b64encode(mac(b'foo')).decode()}"},
        ),
        ("dropbox", {"method": "GET", "query": "challenge=abc"}, b"abc"),
        ("token", {"method": "GET", "headers": [(b"x-okta-verification-challenge", b"abc")]}, {"verification": "abc"}),
    ],
)
def test_a_handshake_is_answered(scheme, given, reply):
    found = ask(scheme, **given)
    assert (found.body if isinstance(reply, bytes) else json.loads(found.body)) == reply
    assert found.content_type == ("text/plain" if isinstance(reply, bytes) else "application/json")


@pytest.mark.rule("W-14")
@pytest.mark.parametrize(
    ("scheme", "given"),
    [
        ("slack", {"body": SLACK}),  # not verified
        ("github", {"body": SLACK, "signed": True}),
        ("slack", {"body": SLACK.replace(b"url_verification", b"event_callback"), "signed": True}),
        ("slack", {"body": SLACK + b" " * 5000, "signed": True}),
        ("none", {"body": b'{"challenge": "abc", "more": 1}', "signed": True}),
        ("none", {"body": b'{"challenge": null}', "signed": True}),
        ("none", {"body": b'["challenge"]', "signed": True}),
        ("discord", {"body": b'{"type": 2}', "signed": True}),
        ("github", {"query": "validationToken=x"}),
        ("x", {"query": "crc_token=x"}),  # POST
        ("github", {"method": "GET", "query": "crc_token=x&challenge=x"}),
        ("none", {"method": "HEAD", "query": "challenge=x"}),
    ],
)
def test_what_is_no_handshake_of_this_scheme_is_left_alone(scheme, given):
    assert ask(scheme, **given) is None


@pytest.mark.rule("W-14")
@pytest.mark.parametrize(
    ("scheme", "given"),
    [
        ("none", {"query": "validationToken=" + "x" * 1025}),
        ("none", {"query": "validationToken=%C3%A9"}),
        ("none", {"query": "validationToken=a%0D%0Ab"}),
        ("none", {"query": "validationToken="}),
        ("slack", {"body": SLACK.replace(b"3eZ", b"\\n"), "signed": True}),
        # Signing these would sign a webhook for anybody who asks.
        ("x", {"method": "GET", "query": "crc_token=%7B%22for_user_id%22%3A1%7D"}),
        ("zoom", {"body": ZOOM.replace(b"qgg8", b"v0:17:"), "signed": True}),
    ],
)
def test_a_challenge_that_could_be_something_else_is_refused(scheme, given):
    with pytest.raises(BadRequest, match="challenge"):
        ask(scheme, **given)


def test_a_verify_token_that_is_set_must_be_given():
    query = "hub.mode=subscribe&hub.challenge=1&hub.verify_token="
    assert ask("meta", "GET", query=query + "abc", verify_token="abc").body == b"1"
    for token in ("", "abd", "%E9"):
        with pytest.raises(Forbidden):
            ask("meta", "GET", query=query + token, verify_token="abc")


@pytest.mark.rule("W-14")
def test_a_sender_of_cloudevents_may_if_it_asks():
    reply = allowed(Delivery([(b"webhook-request-origin", b"eventemitter.example.com")], b""))
    assert reply.headers == {"Allow": "POST", "WebHook-Allowed-Origin": "eventemitter.example.com"}
    asked = [(b"WebHook-Request-Origin", b"a.example"), (b"WebHook-Request-Rate", b"120")]
    assert allowed(Delivery(asked, b"")).headers["WebHook-Allowed-Rate"] == "*"
    for headers in ([], [(b"WebHook-Request-Origin", b"\xff")], asked + asked):
        assert allowed(Delivery(headers, b"")) is None


_queries = st.lists(
    st.tuples(
        st.sampled_from([b"challenge", b"hub.challenge", b"validationToken", b"crc_token", b"hub.verify_token"]),
        st.binary(max_size=30),
    )
).map(lambda found: b"&".join(name + b"=" + value for name, value in found))
_bodies = st.binary(max_size=50) | st.builds(
    lambda value, kind: json.dumps({"challenge": value, "type": kind, "event": kind}).encode(),
    st.text(max_size=20) | st.integers() | st.none(),
    st.sampled_from(["url_verification", "endpoint.url_validation", 1, None]),
)


@given(st.sampled_from(sorted(SCHEMES)), st.sampled_from(["GET", "HEAD", "POST"]), _bodies, _queries, st.booleans())
def test_whatever_is_asked_the_reply_is_visible_ascii(scheme, method, body, query, signed):
    try:
        reply = answer(method, scheme, ("s",), {"verify_token": "v"}, Delivery([], body, query), signed=signed)
    except (BadRequest, Forbidden):
        return
    assert reply is None or all(0x20 <= byte < 0x7F for byte in reply.body)
