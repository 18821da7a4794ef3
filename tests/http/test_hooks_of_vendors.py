"""Webhooks of all vendors over HTTP: what they have published, what their libraries sign, and what nobody may send."""

import gzip
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import slack_sdk.signature
import standardwebhooks
import stripe
import svix.webhooks
from conftest import Running
from support.protocol import JSON, Answer, line
from support.signing import FORM, PLAIN, SIGNERS, URL, WHSEC, Signer, body_of
from twilio.request_validator import RequestValidator

import notifier.web.hooks
from notifier.core.webhooks.sources import Source, check_source
from notifier.postgres import sources
from notifier.postgres.sources import add_source

Headers = list[tuple[bytes, bytes]]


async def post(app: Running, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Answer:
    """As no client library would send it."""
    async with line(app) as raw:
        lines = [name + b": " + value for name, value in headers]
        await raw.send(f"POST {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", body=body)
        return await raw.answer()


def raw(headers: dict[str, str]) -> Headers:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def nothing_published(app: Running) -> bool:
    return (await app.poll("**", after="earliest", wait=0))["messages"] == []


# What vendors have published


class Example(NamedTuple):
    """What arrives at the time `at` (Unix seconds; 0: that does not matter)."""

    scheme: str
    secret: str
    headers: dict[str, str]
    body: str
    at: int = 0
    query: str = ""
    url: str = ""


NOW = 1_790_000_000
BODY = '{"id": "evt_1", "x": "\u00e9\U0001f600"}'
# The secret of GitHub's documentation, and of Atlassian's.
EVERYBODY = "It's a Secret to Everybody"
PAGERDUTY = (
    '{"event":{"id":"01BWDWL3NYY7LUFPZCC28QUCMK","event_type":"incident.priority_updated","resource_type":"incident",'
    '"occurred_at":"2021-04-26T17:36:27.458Z","agent":{"html_url":"https://acme.pagerduty.com/users/PLH1HKV",'
    '"id":"PLH1HKV","self":"https://api.pagerduty.com/users/PLH1HKV","summary":"Tenex Engineer",'
    '"type":"user_reference"},"client":null,"data":{"id":"PGR0VU2","type":"incident","self":"https://api.pagerduty.com/incidents/PGR0VU2",'
    '"html_url":"https://acme.pagerduty.com/incidents/PGR0VU2","number":2,"status":"triggered",'
    '"title":"A little bump in the road","service":{"html_url":"https://acme.pagerduty.com/services/PF9KMXH",'
    '"id":"PF9KMXH","self":"https://api.pagerduty.com/services/PF9KMXH","summary":"API Service",'
    '"type":"service_reference"},"assignees":[{"html_url":"https://acme.pagerduty.com/users/PTUXL6G","id":"PTUXL6G",'
    '"self":"https://api.pagerduty.com/users/PTUXL6G","summary":"User 123","type":"user_reference"}],'
    '"escalation_policy":{"html_url":"https://acme.pagerduty.com/escalation_policies/PUS0KTE","id":"PUS0KTE",'
    '"self":"https://api.pagerduty.com/escalation_policies/PUS0KTE","summary":"Default",'
    '"type":"escalation_policy_reference"},"teams":[{"html_url":"https://acme.pagerduty.com/teams/PFCVPS0","id":"PFCVPS0",'
    '"self":"https://api.pagerduty.com/teams/PFCVPS0","summary":"Engineering","type":"team_reference"}],'
    '"priority":{"html_url":"https://acme.pagerduty.com/account/incident_priorities","id":"PSO75BM",'
    '"self":"https://api.pagerduty.com/priorities/PSO75BM","summary":"P1","type":"priority_reference"},"urgency":"high",'
    '"conference_bridge":{"conference_number":1000,"conference_url":"https://example.com"},"resolve_reason":null}}}'
)
SLACK = (
    "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name="
    "foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2F"
    "hooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id="
    "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
STANDARD = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


def standard(prefix: str, key: str, id_: str, at: str, signature: str) -> dict[str, str]:
    assert key
    return JSON | {f"{prefix}id": id_, f"{prefix}timestamp": at, f"{prefix}signature": signature}


def of_twilio() -> Example:
    twilio = RequestValidator(PLAIN)
    query = f"a=1&bodySHA256={twilio.compute_hash(BODY)}"
    headers = JSON | {"X-Twilio-Signature": twilio.compute_signature(f"{URL}?{query}", {})}
    return Example("twilio", PLAIN, headers, BODY, query=query, url=URL)


EXAMPLES = {
    "github, documentation": Example(
        "github",
        EVERYBODY,
        {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        "Hello, World!",
    ),
    "bitbucket, documentation": Example(
        "bitbucket",
        EVERYBODY,
        {"X-Hub-Signature": "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"},
        "Hello World!",
    ),
    "slack, documentation": Example(
        "slack",
        "8f742231b10e8888abcd99yyyzzz85a5",
        {
            "Content-Type": FORM,
            "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            "X-Slack-Request-Timestamp": "1531420618",
        },
        SLACK,
        1531420618,
    ),
    "twilio, documentation": Example(
        "twilio",
        "12345",
        {"Content-Type": FORM, "X-Twilio-Signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="},
        "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212",
        query="foo=1&bar=2",
        url="https://mycompany.com/myapp.php",
    ),
    "pagerduty, its library's test": Example(
        "pagerduty",
        "lDQHScfUeXUKaQRNF+8XIiDKZ7XX3itBAYzwU0TARw8lJqRnkKl2iB1anSb0Z+IK",
        JSON | {"X-PagerDuty-Signature": "v1=0c0b9495b893a39e70d1fea2fe11fbe0a825f88b9f67846f6cc07dd2bc5476cd"},
        PAGERDUTY,
    ),
    **{
        f"standard, specification, {prefix}": Example(
            "standard",
            STANDARD[0],
            standard(prefix, *STANDARD, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            '{"test": 2432232314}',
            int(STANDARD[2]),
        )
        for prefix in ("webhook-", "svix-")
    },
    **{
        f"{scheme}, {prefix} signed by its library": Example(
            scheme,
            WHSEC,
            standard(prefix, WHSEC, "msg_1", str(NOW), sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY)),
            BODY,
            NOW,
        )
        for scheme, prefix, sign in (
            ("standard", "webhook-", standardwebhooks.Webhook(WHSEC).sign),
            ("standard", "svix-", svix.webhooks.Webhook(WHSEC).sign),
            ("gitlab", "webhook-", standardwebhooks.Webhook(WHSEC).sign),
        )
    },
    "stripe, signed by its library": Example(
        "stripe",
        WHSEC,
        JSON | {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(BODY, WHSEC, timestamp=NOW)},
        BODY,
        NOW,
    ),
    "slack, signed by its library": Example(
        "slack",
        PLAIN,
        JSON
        | {
            "X-Slack-Signature": str(
                slack_sdk.signature.SignatureVerifier(PLAIN).generate_signature(timestamp=str(NOW), body=BODY)
            ),
            "X-Slack-Request-Timestamp": str(NOW),
        },
        BODY,
        NOW,
    ),
    "twilio, signed by its library": of_twilio(),
}


@pytest.mark.rule("W-2", "W-13")
@pytest.mark.parametrize("name", EXAMPLES)
async def test_what_a_vendor_has_published_is_accepted_to_the_byte(
    app: Running, database: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    example = EXAMPLES[name]
    options = {"url": example.url} if example.url else {}
    await add_source(database, check_source("s", example.scheme, "s", [example.secret], options))
    clock = SimpleNamespace(time=lambda: example.at or time.time())
    monkeypatch.setattr(notifier.web.hooks, "time", clock)
    path = f"/hooks/s?{example.query}".removesuffix("?")
    body = example.body.encode()
    for other in (body + b"\n", body[:-1], body.replace(b"1", b"2"), body.replace(b"o", b"O")):
        if other != body:
            assert (await post(app, path, raw(example.headers), other)).status == 401
    assert await nothing_published(app)
    answer = await post(app, path, raw(example.headers), body)
    assert answer.status == 200, answer.body
    [message] = (await app.poll("s", after="earliest", wait=0))["messages"]
    async with app.client.get(f"/v1/messages/{message['id']}") as response:
        assert await response.read() == body


# What nobody may send


def covers_nothing(signer: Signer) -> bool:
    """It sends the secret itself."""
    return signer.header in {"Authorization", "X-My-Hook", "X-Gitlab-Token"}


def tells_time(source: Source, signer: Signer) -> bool:
    return any(row.timestamp and row.header == signer.header for row in source.rows or ())


class Good(NamedTuple):
    """A webhook that would be accepted."""

    signer: Signer
    source: Source
    headers: dict[str, str]
    body: bytes
    now: int

    @property
    def signature(self) -> bytes:
        """What the header has, and of several signatures the good one alone."""
        whole = self.headers[self.signer.header].encode().removesuffix(b",v0=00")
        separator = {"pagerduty": b",", "standard": b" "}.get(self.signer.scheme)
        return whole.rpartition(separator)[2] if separator else whole

    def signed_as(self, *values: bytes) -> list[tuple[Headers, bytes]]:
        """With another value in the header of the signature."""
        others = [(name, value) for name, value in raw(self.headers) if name != self.signer.header.encode()]
        return [
            ([*others, (self.signer.header.encode(), value)], self.body) for value in values if value != self.signature
        ]


def missing(good: Good) -> list[tuple[Headers, bytes]]:
    return [
        ([(name, value) for name, value in raw(good.headers) if name != left.encode()], good.body)
        for left in good.headers
    ]


def empty(good: Good) -> list[tuple[Headers, bytes]]:
    return [(raw(good.headers | {name: value}), good.body) for name in good.headers for value in ("", " ", "\t")]


def doubled(good: Good) -> list[tuple[Headers, bytes]]:
    pairs = raw(good.headers)
    twice = [[*pairs, (name.lower(), other)] for name, value in pairs for other in (value, b"", b"x", b"\xff")]
    return [(headers, good.body) for headers in twice]


def with_a_wrong_prefix(good: Good) -> list[tuple[Headers, bytes]]:
    right = good.signature
    bare = re.sub(rb"^(\w+=|v1a?,|Bearer |Basic |bearer )", b"", right)
    return good.signed_as(bare, *(prefix + bare for prefix in (b"sha512=", b"v9=", b"v2,", b"Digest ", b"x", b"=")))


def not_ascii(good: Good) -> list[tuple[Headers, bytes]]:
    right = good.signature
    return good.signed_as(right + "\u00e9".encode(), right + b"\xff", b"\xfe\xff" + right, "\u0661\u0662".encode())


def not_encoded_well(good: Good) -> list[tuple[Headers, bytes]]:
    right = good.signature
    return good.signed_as(
        right[:-1], right + b"====", right + b"!!", right[:8] + b" " + right[8:], right[:-2] + b"-_", right + right[-8:]
    )


def of_an_absurd_time(good: Good) -> list[tuple[Headers, bytes]]:
    signer, found = good.signer, []
    if tells_time(good.source, signer):
        # Signed as it should be.
        for then in (0, 1, good.now - 10_000, good.now + 10_000, 10**14, 10**40):
            body = body_of(signer, then)
            found.append((raw(signer.sign(body, then)), body))
    if signer.timed:
        malformed = ("-1", "+1", "1.5", "1e9", "0x10", "NaN", "9" * 300, "1_790_000_000", "\u0661", "now")
        found += [(raw(good.headers | {signer.timed: value}), good.body) for value in malformed]
    return found


def of_another_body(good: Good) -> list[tuple[Headers, bytes]]:
    if covers_nothing(good.signer):
        return []
    others = (
        b"",
        b"\xff\x00",
        good.body + b"\n",
        good.body + b" ",
        gzip.compress(good.body),
        b"\xef\xbb\xbf" + good.body,
    )
    return [(raw(good.headers), other) for other in others]


def very_long(good: Good) -> list[tuple[Headers, bytes]]:
    return good.signed_as(b"v1=00," * 9000, b"v1,00 " * 9000, b"sha256=" + b"0" * 60_000, good.signature * 500)


def compressed(good: Good) -> list[tuple[Headers, bytes]]:
    packed = gzip.compress(good.body)
    return [
        ([*raw(good.headers), (b"Content-Encoding", name)], body)
        for name, body in ((b"gzip", packed), (b"br", good.body), (b"gzip, gzip", packed))
    ]


def with_control_characters(good: Good) -> list[tuple[Headers, bytes]]:
    return good.signed_as(*(good.signature[:4] + bytes([each]) + good.signature[4:] for each in (0, 1, 10, 13)))


HOSTILE: dict[Callable[[Good], list[tuple[Headers, bytes]]], tuple[int, ...]] = {
    missing: (401,),
    empty: (401,),
    doubled: (401,),
    with_a_wrong_prefix: (401,),
    not_ascii: (401,),
    not_encoded_well: (401,),
    of_an_absurd_time: (401,),
    of_another_body: (401,),
    very_long: (401, 431),
    compressed: (415,),
    with_control_characters: (400,),
}


@pytest.mark.rule("W-2", "W-10", "W-13")
@pytest.mark.parametrize("how", HOSTILE, ids=lambda how: how.__name__)
async def test_a_hostile_request_is_refused_and_never_a_message(
    app: Running,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: Callable[[Good], list[tuple[Headers, bytes]]],
) -> None:
    monkeypatch.setattr(sources, "PACE_S", 0)  # each refusal asks for the newest secrets
    now = int(time.time())
    count = 0
    for n, signer in enumerate(SIGNERS.values()):
        source = check_source(f"s-{n}", signer.scheme, f"s/{n}", [signer.secret], signer.options)
        await add_source(database, source)
        body = body_of(signer, now)
        good = Good(signer, source, signer.sign(body, now), body, now)
        for headers, sent in how(good):
            count += 1
            given = [(b"Content-Type", signer.content_type.encode()), *headers]
            answer = await post(app, f"/hooks/s-{n}", given, sent)
            assert answer.status in HOSTILE[how], (signer.scheme, headers, sent, answer)
            assert answer.headers["content-type"] == "application/problem+json"
            assert signer.secret.encode() not in answer.body
    assert count
    assert await nothing_published(app)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.rule("W-2", "W-13")
async def test_every_scheme_is_verified_and_its_signature_kept(app: Running, database: str) -> None:
    """In one go, because each needs a source."""
    now = int(time.time())
    for n, signer in enumerate(SIGNERS.values()):
        await add_source(database, check_source(f"s-{n}", signer.scheme, f"s/{n}", [signer.secret], signer.options))
        body = body_of(signer, now)
        headers = signer.sign(body, now)
        given = [(b"Content-Type", signer.content_type.encode()), *raw(headers)]
        answer = await post(app, f"/hooks/s-{n}", given, body)
        assert answer.status == 200, (signer.scheme, answer)
        [message] = (await app.poll(f"s/{n}", after="earliest", wait=0))["messages"]
        async with app.client.get(f"/v1/messages/{message['id']}") as response:
            assert await response.read() == body
            # A receiver behind this can verify it too, but is not told a secret.
            assert signer.secret not in str(response.headers)
            if not covers_nothing(signer):
                assert response.headers[f"Notifier-Header-{signer.header}"] == headers[signer.header]
