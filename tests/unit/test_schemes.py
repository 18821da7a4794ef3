"""Signature schemes: what vendors sign is accepted, and nothing else, whatever it is."""

import base64
import json
import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
import slack_sdk.signature
import standardwebhooks
import stripe
import svix.webhooks
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from support.signing import (
    FORM,
    PLAIN,
    PUBLIC,
    SIGNERS,
    URL,
    WHSEC,
    Signer,
    b64,
    body_of,
    mac,
    sha256_of,
)
from twilio.request_validator import RequestValidator

from notifier.cli.vendors import HINTS
from notifier.core.errors import BadRequest, BadSignature, Forbidden, InvalidSource, Unavailable
from notifier.core.messages import NewMessage, is_content_type
from notifier.core.topics import check_topic
from notifier.core.webhooks import receive
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.schemes import SCHEMES
from notifier.core.webhooks.signatures import MAX_SIGNATURES, verify
from notifier.core.webhooks.sources import Source, check_source

NOW = 1_790_000_000

all_signers = pytest.mark.parametrize("signer", SIGNERS.values(), ids=SIGNERS)


def source_of(signer: Signer, *more: str) -> Source:
    return check_source("s", signer.scheme, "t", [*more, signer.secret], signer.options)


def delivery_of(signer: Signer, headers: dict[str, str], body: bytes, query: str = "") -> Delivery:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Delivery([(b"Content-Type", signer.content_type.encode()), *raw], body, query.encode())


def check(source: Source, delivery: Delivery, now: float = NOW) -> None:
    verify(source.rows, source.secrets, delivery, now, source.options.get("url"))


def refused(source: Source, delivery: Delivery, now: float = NOW) -> str:
    """The reason."""
    with pytest.raises(BadSignature) as error:
        check(source, delivery, now)
    assert error.value.status == 401
    assert PLAIN not in str(error.value)
    assert re.fullmatch(r"[A-Za-z].*[.]", str(error.value))
    return error.value.reason


def test_all_schemes_are_tried_here():
    assert {signer.scheme for signer in SIGNERS.values()} | {"none"} == set(SCHEMES)


@pytest.mark.rule("W-2")
@all_signers
def test_what_a_vendor_signs_is_accepted(signer):
    body = body_of(signer, NOW)
    check(source_of(signer), delivery_of(signer, signer.sign(body, NOW), body))
    shouted = {name.upper(): value for name, value in signer.sign(body, NOW).items()}
    check(source_of(signer), delivery_of(signer, shouted, body))


@pytest.mark.rule("W-2")
@all_signers
def test_any_of_several_secrets_is_accepted(signer):
    other = {WHSEC: "whsec_" + base64.b64encode(b"x" * 24).decode(), PUBLIC.hex(): "00" * 32}.get(
        signer.secret, "other"
    )
    if signer.secret.startswith("whpk_"):
        other = "whpk_" + base64.b64encode(b"x" * 32).decode()
    body = body_of(signer, NOW)
    check(source_of(signer, other), delivery_of(signer, signer.sign(body, NOW), body))
    only = check_source("s", signer.scheme, "t", [other], signer.options)
    assert refused(only, delivery_of(signer, signer.sign(body, NOW), body)) in {"a bad signature", "no signature"}


@pytest.mark.rule("W-2")
@all_signers
def test_another_body_is_refused(signer):
    body = body_of(signer, NOW)
    headers = signer.sign(body, NOW)
    if not signer.header.endswith(("Authorization", "X-My-Hook", "X-Gitlab-Token")):
        for changed in (body + b"\n", b"", body.replace(b"1", b"2") + b" "):
            assert refused(source_of(signer), delivery_of(signer, headers, changed)) == "a bad signature"


MALFORMED = [
    "",
    " ",
    ",",
    ";,=",
    "nocomma",
    "v1,a,b",
    "v1,abc",
    "v1=",
    "v0=",
    "sha256=",
    "sha256=\u20ac",
    "\u0661\u0662",
    "t=,v1=",
    "t=1,t=2,v1=00",
    "Bearer",
    "Bearer \u20ac",
    "Basic !!!!",
    "Basic " + b64(b"no colon"),
    "A" * 8000,
    "v1," * 1000,
    "v1=00," * 1000,
]


@pytest.mark.rule("W-2")
@all_signers
def test_a_malformed_signature_is_refused(signer):
    body = body_of(signer, NOW)
    good = signer.sign(body, NOW)
    right = good[signer.header]
    source = source_of(signer)
    more = [right[:-1], right + "0", right + "=", f"{right},{right}x", right.replace("=", ":"), right[1:], f"x{right}"]
    if signer.scheme in {"stripe", "pagerduty"}:
        more = [right.replace("v1", "v2"), right.replace("v1=", ""), right.replace(",", ";"), right[:50]]
    if signer.secret.startswith("whpk_"):
        more = [right[:-1], right.replace("v1a", "v1"), right.replace("v1a", "v2")]
    for value in [*MALFORMED, *more]:
        if value != right:
            refused(source, delivery_of(signer, good | {signer.header: value}, body))
    for name in good:
        without = {each: value for each, value in good.items() if each != name}
        refused(source, delivery_of(signer, without, body))
        raw = [(each.encode(), value.encode()) for each, value in good.items()]
        for twice in (right.encode(), b"", b"\xff"):
            doubled = Delivery(
                [*raw, (name.lower().encode(), twice), (b"content-type", signer.content_type.encode())], body
            )
            assert refused(source, doubled).startswith("more than one ")


@all_signers
def test_a_timestamp_is_one_whole_number_not_far_from_now(signer):
    body = body_of(signer, NOW)
    good = signer.sign(body, NOW)
    source = source_of(signer)
    tolerance = max(
        (row.tolerance_s for row in source.rows or () if row.timestamp and row.header == signer.header), default=None
    )
    if tolerance is None:
        return
    check(source, delivery_of(signer, good, body), NOW + tolerance)
    check(source, delivery_of(signer, good, body), NOW - tolerance)
    assert refused(source, delivery_of(signer, good, body), NOW + tolerance + 1) == "an old timestamp"
    assert refused(source, delivery_of(signer, good, body), NOW - tolerance - 1) == "a timestamp in the future"
    if signer.timed:
        for value in ("", "abc", "1.5", "-1", "1_700_000_000", f"+{NOW}", f"{NOW}.0", f"{NOW}e0", "9" * 400, "\u0661"):
            assert refused(source, delivery_of(signer, good | {signer.timed: value}, body)) == "a malformed timestamp"


def test_timestamps_in_the_signature_and_in_the_body_are_as_strict():
    stripe_ = source_of(SIGNERS["stripe, Stripe-Signature"])
    for time in ("", "abc", "1.5", f"{NOW},t={NOW}", " ", "\u0661"):
        value = f"t={time},v1={mac(WHSEC, f'{time}.', b'{}').hex()}"
        assert refused(stripe_, Delivery([(b"Stripe-Signature", value.encode())], b"{}")) == "a malformed timestamp"
    linear = source_of(SIGNERS["linear, Linear-Signature"])
    for body in (
        b"",
        b"{}",
        b"[",
        b"\xff",
        b'{"webhookTimestamp": "x"}',
        b'{"webhookTimestamp": 1.5}',
        b'{"webhookTimestamp": 1e400}',
    ):
        signature = mac(PLAIN, body).hex().encode()
        assert refused(linear, Delivery([(b"Linear-Signature", signature)], body)) == "a malformed timestamp"
    old = b'{"webhookTimestamp": %d}' % NOW  # seconds
    assert refused(linear, Delivery([(b"Linear-Signature", mac(PLAIN, old).hex().encode())], old)) == "an old timestamp"


def test_only_so_many_signatures_are_tried():
    signer = SIGNERS["pagerduty, X-PagerDuty-Signature"]
    good = f"v1={mac(PLAIN, signer.body).hex()}"
    for count, accepted in ((MAX_SIGNATURES - 1, True), (MAX_SIGNATURES, False)):
        headers = {signer.header: ",".join([*["v1=00"] * count, good])}
        if accepted:
            check(source_of(signer), delivery_of(signer, headers, signer.body))
        else:
            assert refused(source_of(signer), delivery_of(signer, headers, signer.body)) == "a malformed signature"


_values = st.binary(max_size=60) | st.sampled_from([value.encode() for value in MALFORMED])


@given(signer=st.sampled_from(sorted(SIGNERS)), data=st.data(), body=st.binary(max_size=60))
def test_no_header_and_no_body_raises_anything_but_a_refusal(signer, data, body):
    signer = SIGNERS[signer]
    names = sorted(set(signer.sign(signer.body, NOW)) | {"Content-Type", "webhook-id"})
    headers = data.draw(st.lists(st.tuples(st.sampled_from([name.encode() for name in names]), _values), max_size=6))
    refused(source_of(signer), Delivery(headers, body, data.draw(_values)))


# The vendors' own libraries sign


BODY = '{"id": "evt_1", "x": "\u00e9\U0001f600"}'


def deliver(headers: dict[str, str], body: str = BODY, query: str = "") -> Delivery:
    return Delivery([(name.encode(), value.encode()) for name, value in headers.items()], body.encode(), query.encode())


@pytest.mark.parametrize(
    ("library", "prefix"), [(standardwebhooks.Webhook, "webhook-"), (svix.webhooks.Webhook, "svix-")]
)
def test_what_standardwebhooks_and_svix_sign_is_accepted(library, prefix):
    signature = library(WHSEC).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY)
    headers = {f"{prefix}id": "msg_1", f"{prefix}timestamp": str(NOW), f"{prefix}signature": signature}
    check(check_source("s", "standard", "t", [WHSEC]), deliver(headers))
    check(check_source("s", "standard", "t", [WHSEC.removeprefix("whsec_")]), deliver(headers))
    # Its key is decoded, that of Stripe is not.
    assert refused(check_source("s", "standard", "t", ["whsec_" + b64(b"another secret of 24 byt")]), deliver(headers))


def test_what_stripe_signs_is_accepted():
    header = stripe.WebhookSignature.generate_signature_header(BODY, WHSEC, timestamp=NOW)
    check(check_source("s", "stripe", "t", [WHSEC]), deliver({"Stripe-Signature": header}))


def test_what_slack_signs_is_accepted():
    signature = slack_sdk.signature.SignatureVerifier(PLAIN).generate_signature(timestamp=str(NOW), body=BODY)
    headers = {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": str(NOW)}
    check(check_source("s", "slack", "t", [PLAIN]), deliver(headers))


@pytest.mark.parametrize("signed_url", [URL, URL.replace(".com/", ".com:443/")])
@pytest.mark.parametrize("set_url", [URL, URL.replace(".com/", ".com:443/")])
@pytest.mark.parametrize("query", ["", "a=1&b=%20"])
def test_what_twilio_signs_is_accepted_by_the_url_that_is_set(signed_url, set_url, query):
    twilio = RequestValidator(PLAIN)
    source = check_source("s", "twilio", "t", [PLAIN], {"url": set_url})
    form = "From=%2B1&Body=a+b&Empty=&Z=%C3%A9&Body=a+b"
    full = f"{signed_url}?{query}" if query else signed_url
    signature = twilio.compute_signature(full, dict(parse_qsl(form, keep_blank_values=True)))
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature, "X-Forwarded-Host": "evil.example", "Host": "x"}
    check(source, deliver(headers, form, query))
    # JSON is hashed into the query.
    query = f"{query}&bodySHA256={twilio.compute_hash(BODY)}".removeprefix("&")
    headers = {
        "Content-Type": "application/json",
        "X-Twilio-Signature": twilio.compute_signature(f"{signed_url}?{query}", {}),
    }
    check(source, deliver(headers, BODY, query))
    assert refused(source, deliver(headers, BODY + " ", query)) == "a bad signature"
    other = check_source("s", "twilio", "t", [PLAIN], {"url": "https://other.example/hooks/sms"})
    assert refused(other, deliver(headers, BODY, query)) == "a bad signature"


def test_json_from_twilio_without_its_hash_is_refused():
    source = check_source("s", "twilio", "t", [PLAIN], {"url": URL})
    signature = b64(mac(PLAIN, URL, digest="sha1"))
    for query in ("", "bodySHA256=", f"bodySHA256={sha256_of(b'other')}"):
        signature = b64(mac(PLAIN, f"{URL}?{query}" if query else URL, digest="sha1"))
        headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature}
        assert refused(source, deliver(headers, BODY, query)) == "a bad signature"
    check(source, deliver({"X-Twilio-Signature": b64(mac(PLAIN, URL, digest="sha1"))}, ""))


# Sources


@pytest.mark.parametrize(
    ("scheme", "secret", "sentence"),
    [
        ("standard", "v1," + WHSEC, "leave that out"),
        ("stripe", "v1," + WHSEC, "leave that out"),
        ("standard", "whsec_c2hvcnQ=", "24 to 64 bytes"),
        ("standard", WHSEC[:-1], "24 to 64 bytes"),
        ("standard", WHSEC.replace("=", ""), "24 to 64 bytes"),
        ("standard", "whsec_" + "-_" * 20, "24 to 64 bytes"),
        ("standard", WHSEC[:20] + "\u00a0" + WHSEC[20:], "printable"),
        ("standard", "whsec_" + b64(b"x" * 65), "24 to 64 bytes"),
        ("standard", "whpk_" + b64(b"x" * 31), "24 to 64 bytes"),
        ("standard", "not base64 at all", "24 to 64 bytes"),
        ("gitlab", "whsec_short", "24 to 64 bytes"),
        ("discord", "ab" * 31, "64 hexadecimal digits"),
        ("discord", "xy" * 32, "64 hexadecimal digits"),
        ("github", "", "printable"),
    ],
)
def test_a_secret_that_was_not_pasted_well_is_refused(scheme, secret, sentence):
    with pytest.raises(InvalidSource, match=re.escape(sentence)) as error:
        check_source("s", scheme, "t", [secret])
    assert not secret or secret not in str(error.value)


@pytest.mark.parametrize(
    ("scheme", "options", "sentence"),
    [
        ("github", {"header": "X"}, "The scheme github has no option 'header'; it has: none."),
        ("hmac", {}, "The scheme hmac needs the option header."),
        ("twilio", {}, "The scheme twilio needs the option url."),
        ("twilio", {"url": "hooks/sms"}, "The option url must be the URL"),
        ("twilio", {"url": "https://a.example/?x=1"}, "The option url must be the URL"),
        ("twilio", {"url": "https://a.example:x/"}, "The option url must be the URL"),
        ("twilio", {"url": "https://me:pw@a.example/"}, "The option url must be the URL"),
        ("hmac", {"header": "X Y"}, "The option header must be the name of a header."),
        ("hmac", {"header": "X", "digest": "md5"}, "one of sha256, sha1"),
        ("hmac", {"header": "X", "signed": "{timestamp}"}, "must contain {body}"),
        ("hmac", {"header": "X", "signed": "{body}{what}"}, "must contain {body}"),
        ("hmac", {"header": "X", "signed": "{timestamp}{body}"}, "the option timestamp must name a header"),
        ("hmac", {"header": "X", "signed": "{id}{body}", "id": "json:id"}, "the option id must name a header"),
        ("hmac", {"header": "X", "timestamp": "X-Time"}, "otherwise anybody could change that"),
        ("hmac", {"header": "X", "timestamp": "item:t=", "signed": "{timestamp}{body}"}, "separator"),
        ("hmac", {"header": "X", "tolerance": "0"}, "a number of seconds"),
        ("hmac", {"header": "X", "tolerance": "1e9"}, "a number of seconds"),
        ("hmac", {"header": "X", "separator": "ab"}, "a space, a comma or a semicolon"),
        ("token", {"as": "digest"}, "one of bearer, basic, plain"),
        ("none", {"header": "X"}, "has no option 'header'"),
    ],
)
def test_malformed_options_are_refused_with_a_sentence(scheme, options, sentence):
    with pytest.raises(InvalidSource, match=re.escape(sentence)):
        check_source("s", scheme, "t", [] if scheme == "none" else [PLAIN], options)


def test_headers_that_hold_a_secret_are_known_and_those_that_sign_come_first():
    assert source_of(SIGNERS["token, X-My-Hook"]).secret_headers == {"x-my-hook"}
    assert source_of(SIGNERS["github, X-Hub-Signature-256"]).secret_headers == frozenset()
    assert source_of(SIGNERS["slack, X-Slack-Signature"]).telling == {"x-slack-signature", "x-slack-request-timestamp"}


def test_a_server_without_the_package_for_public_keys_says_so(monkeypatch):
    signer = SIGNERS["discord, X-Signature-Ed25519"]
    source = source_of(signer)
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(Unavailable, match="cryptography"):
        check(source, delivery_of(signer, signer.sign(signer.body, NOW), signer.body))
    monkeypatch.setattr("notifier.core.webhooks.signatures.find_spec", lambda _: None)
    with pytest.raises(InvalidSource, match="cryptography"):
        source_of(signer)


def test_each_scheme_says_where_its_url_is_entered():
    assert HINTS.keys() == SCHEMES.keys()


@pytest.mark.rule("W-1")
@given(
    st.sampled_from(sorted(SIGNERS)),
    st.binary(max_size=60)
    | st.sampled_from([b'{"challenge": "x"}', b'{"type": 1}', b"payload=%7B", b"\xef\xbb\xbf{}"]),
    st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=60)), max_size=5),
    _values,
)
def test_whatever_is_signed_becomes_a_message_byte_for_byte_or_a_handshake(name, body, headers, query):
    """No header, body or query makes anything raise what is not an answer of ours."""
    signer = SIGNERS[name]
    template = "t/{a|header:X-A|form:a|query:a}"
    source = check_source("s", signer.scheme, template, [signer.secret], signer.options)
    ours = delivery_of(signer, signer.sign(body, NOW), body).headers
    delivery = Delivery([*ours, *headers], body, query)
    try:
        found = receive.read(source, delivery, NOW)
    except (BadSignature, BadRequest, Forbidden):
        return
    if isinstance(found, NewMessage):
        assert found.body == body
        assert check_topic(found.topic)
        assert found.content_type is None or is_content_type(found.content_type)
        assert "\\u0000" not in found.headers
        json.loads(found.headers.encode())


def test_the_page_on_webhooks_has_every_scheme():
    _, page = (ROOT / "docs" / "webhooks.md").read_text().split("\n## Schemes\n")
    page, *_ = page.split("\n## ")
    listed = {name for row in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed == set(SCHEMES)
