"""What makes a webhook known again: the id of its delivery, where its vendor says that it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.signing import PLAIN, SIGNERS, Signer, mac

from notifier.core.idempotency import Once
from notifier.core.webhooks import receive
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.schemes import SCHEMES
from notifier.core.webhooks.sources import check_source

NOW = 1_790_000_000

# By scheme, or by scheme and the header of the signature: the headers and the JSON of a delivery of the id `one`.
IDS: dict[str, tuple[dict[str, str], str]] = {
    "bitbucket": ({"X-Request-UUID": "one", "X-Hook-UUID": "{hook}"}, ""),
    "cloudevents": ({"ce-id": "one", "ce-source": "/mine"}, ""),
    "gitea": ({"X-Gitea-Delivery": "one"}, ""),
    "github": ({"X-GitHub-Delivery": "one"}, ""),
    "gitlab, X-Gitlab-Token": ({"Idempotency-Key": "one", "X-Gitlab-Event-UUID": "of several"}, ""),
    "heroku": ({}, '"id": "one"'),
    "linear": ({"Linear-Delivery": "one"}, f'"webhookTimestamp": {NOW}000'),
    "pagerduty": ({}, '"event": {"id": "one"}'),
    "sentry": ({"Request-ID": "one"}, ""),
    "shopify, X-Shopify-Hmac-Sha256": ({"X-Shopify-Webhook-Id": "one", "X-Shopify-Event-Id": "of several"}, ""),
    "shopify, Shopify-Hmac-Sha256": ({"Shopify-Webhook-Id": "one"}, ""),
    "slack": ({}, '"event_id": "one"'),
    "stripe": ({}, '"id": "one"'),
    "twilio": ({"I-Twilio-Idempotency-Token": "one"}, ""),
}
# Their signature covers the id: msg_1 of the signer.
SIGNED = {
    "standard, webhook-signature",
    "standard, svix-signature",
    "standard, a public key",
    "gitlab, webhook-signature",
}
# What looks like an id and is none: WooCommerce gives all deliveries of one second the same.
TEMPTING = {"X-WC-Webhook-Delivery-ID": "one", "X-Request-Id": "one", "X-Webhook-Id": "one", "Idempotency-Key": "one"}


def once(
    signer: Signer, headers: dict[str, str] | list[tuple[str, str]], body: bytes, options: dict[str, str] | None = None
) -> Once | None:
    source = check_source("s", signer.scheme, "t", [signer.secret], options or signer.options)
    given = [*signer.sign(body, NOW).items(), *(headers.items() if isinstance(headers, dict) else headers)]
    raw = [(b"Content-Type", signer.content_type.encode())]
    raw += [(name.encode(), value.encode(errors="surrogateescape")) for name, value in given]
    found = receive.read(source, Delivery(raw, body), NOW)
    assert isinstance(found, receive.Read)
    return found.once


@pytest.mark.rule("W-18")
@pytest.mark.parametrize("name", SIGNERS)
def test_the_id_is_where_the_vendor_says(name: str) -> None:
    signer = SIGNERS[name]
    headers, members = IDS.get(name) or IDS.get(signer.scheme) or ({}, f'"webhookTimestamp": {NOW}000')
    bodies = [f'{{"x": {n}{members and ", "}{members}}}'.encode() for n in range(2)]
    first = once(signer, headers, bodies[0])
    if name in SIGNED:
        assert first == once(signer, {}, bodies[1])
        assert first is not None
    elif name in IDS or signer.scheme in IDS:
        assert first is not None
        assert first == once(signer, headers, bodies[1])  # written anew
        others = {header: value.replace("one", "another") for header, value in headers.items()}
        assert first != once(signer, others, bodies[1].replace(b"one", b"another"))
        # Without an id, or with one that is empty or not to be told, there is none.
        without = {header: value for header, value in headers.items() if value != "one"}
        for nothing in (b'""', b"null", b"[1]"):
            assert once(signer, without, bodies[1].replace(b'"one"', nothing)) is None
        [*twice] = [(header, value) for header, value in headers.items() if value == "one"]
        if twice:
            assert once(signer, [*headers.items(), *twice], bodies[0]) is None
            assert once(signer, {**headers, twice[0][0]: ""}, bodies[0]) is None
    else:
        assert once(signer, TEMPTING, bodies[0]) is None


def test_every_scheme_is_looked_at() -> None:
    seen = {name.partition(",")[0] for name in SIGNERS}
    assert seen | {"none"} == set(SCHEMES)


@pytest.mark.rule("W-18")
def test_of_cloudevents_source_and_id_count_in_both_of_their_forms() -> None:
    signer = SIGNERS["cloudevents, Authorization"]
    binary = once(signer, {"ce-id": "1", "ce-source": "/a"}, b"{}")
    structured = b'{"specversion": "1.0", "id": "1", "source": "/a"}'
    assert binary == once(signer, {}, structured)
    for headers, body in (
        ({"ce-id": "1", "ce-source": "/b"}, b"{}"),
        ({"ce-id": "/a", "ce-source": "1"}, b"{}"),
        ({}, structured.replace(b"/a", b"/b")),
    ):
        assert once(signer, headers, body) not in {binary, None}
    assert once(signer, {"ce-id": "1"}, b"{}") is None


@pytest.mark.rule("W-18")
def test_the_general_schemes_have_an_option_for_it() -> None:
    hmac = Signer("hmac", PLAIN, "X-Sign", lambda body, _: {"X-Sign": mac(PLAIN, body).hex()})
    token = SIGNERS["token, Authorization"]
    for signer, options in ((hmac, {"header": "X-Sign"}), (token, {})):
        assert once(signer, {"X-Id": "1"}, b'{"a": {"b": 7}}', options) is None
        assert once(signer, {"X-Id": "1"}, b"{}", options | {"id": "X-Id"}) is not None
        of_json = options | {"id": "json:a.b"}
        assert once(signer, {}, b'{"a": {"b": 7}}', of_json) == once(signer, {}, b'{"a": {"b":7}, "c": 1}', of_json)
        assert once(signer, {}, b'{"a": 7}', of_json) is None


@pytest.mark.rule("W-18")
def test_a_source_that_is_not_verified_has_no_ids() -> None:
    source = check_source("s", "none", "t")
    headers = [(b"X-GitHub-Delivery", b"one"), (b"webhook-id", b"one"), (b"Idempotency-Key", b"one")]
    found = receive.read(source, Delivery(headers, b'{"id": "one", "event_id": "one"}'), NOW)
    assert isinstance(found, receive.Read)
    assert found.once is None


@given(st.binary(max_size=20).filter(lambda value: value.strip()), st.binary(max_size=20).filter(lambda v: v.strip()))
def test_any_bytes_are_an_id(some: bytes, other: bytes) -> None:
    signer = SIGNERS["github, X-Hub-Signature-256"]
    found = [
        once(signer, [("X-GitHub-Delivery", value.decode(errors="surrogateescape"))], b"{}") for value in (some, other)
    ]
    assert None not in found
    assert (found[0] == found[1]) == (some.strip() == other.strip())
