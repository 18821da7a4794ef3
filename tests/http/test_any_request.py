"""Whatever bytes come on a connection: no answer is a failure of ours, and neither it nor the log has a secret."""

import asyncio
import hmac
import json
import logging
import os
import re
import time
from collections.abc import Sequence

import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Running, Start
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.protocol import line
from support.tokens import SECRET, hs256

import notifier.polling
import notifier.web.listing
from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source
from notifier.settings import TokenSettings
from notifier.web import bodies, memory, streams
from notifier.wire import requests

KEY = "the-key-of-an-admin"
HOOK_SECRET = "the-secret-of-a-source"
TOKEN = hs256({"sub": "7", "exp": int(time.time()) + 3600, "notifier": {"publish": ["**"], "subscribe": ["**"]}})
SECRETS = (KEY.encode(), HOOK_SECRET.encode(), TOKEN)

TEMPLATE = "{repository.full_name|commits.0.id}/{header:X-Event|form:From|query:a}/x"
SOURCES = {
    "none": {},
    "github": {},
    "stripe": {},
    "zoom": {},
    "cloudevents": {},
    "pagerduty": {},
    "twilio": {"url": "https://example.com/hooks/twilio"},
    "meta": {"verify_token": "hello"},
    "hmac": {"header": "X-Sign", "timestamp": "X-At", "id": "json:id", "signed": "{body}{timestamp}"},
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a client fails to send or to read is waited for long, and the database for as long as it takes."""
    for module, name, seconds in (
        (bodies, "STALL_S", 0.3),
        (memory, "PROGRESS_S", 0.3),
        (memory, "LOOK_S", 0.05),
        (requests, "MAX_WAIT_S", 0.05),
        (notifier.polling, "DEFAULT_WAIT_S", 0.05),
        (notifier.polling, "WAIT_JITTER_S", 0.0),
        (notifier.polling, "GRACE_S", DEADLINE_S),
        (notifier.web.listing, "GRACE_S", DEADLINE_S),
        (streams, "BEAT_S", 0.05),
        (streams, "SHORTEST_S", 0.05),
        (streams, "LONGEST_S", 0.1),
    ):
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, seconds)


@pytest_asyncio.fixture
async def app(start: Start, database: str, short: None) -> Running:
    for scheme, options in SOURCES.items():
        secrets = [] if scheme == "none" else [HOOK_SECRET]
        await add_source(database, check_source(scheme, scheme, f"{scheme}/{TEMPLATE}", secrets, options))
    return await start(
        admin_keys=(KEY,),
        tokens=TokenSettings(secrets=(SECRET,)),
        public_publish=("public/**",),
        public_subscribe=("public/**",),
        origins=frozenset({"https://app.example.com"}),
        trusted_proxies=1,
        max_body=100_000,
    )


# --- what is sent

BYTES = st.binary(max_size=12)
# What has a meaning somewhere, and what is near it.
_WORDS = """
    0 00 1 -1 +1 1.5 1e5 9223372036854775807 9223372036854775808 99999999999999999999 latest earliest 0s 1s 30d
    999999999d 0001-01-01T00:00:00Z 0001-01-01T00:00:00+14:00 9999-12-31T23:59:59-14:00 2026-11-20T17:00:00Z
    2026-13-40T25:00:00.000000Z,1 294276-12-31T23:59:59.999999Z,1 294277-01-01T00:00:00.000000Z,1
    2026-13-40T99:99:99Z 1795657890 99999999999 NaN null true yes max urgent json text/event-stream application/json
    application/x-ndjson;q=0.1 text/html,*/* application/x-www-form-urlencoded multipart/form-data gzip identity utf-8
    text/plain;charset=latin-1 text/plain;charset="\\"" =?utf-8?b?4pi6?= =?iso-2022-jp?q?=1B$B=7F=1B?= =?utf-7?q?+2AA-?=
    =?utf-8?b?!? * ** a/** a,b %00 %2F %2C %ff %ED%A0%80 \u00e9 wait=1 wait="9" 100-continue same-origin cross-site
    https://app.example.com null 127.0.0.1 [::1]:80 203.0.113.9, 1,2;3 W/"x" chunked close keep-alive upgrade
    websocket HTTP/1.1 a:b {"a":1} [1] bearer basic
"""
WORDS = st.sampled_from(_WORDS.split()).map(str.encode)
VALUES = st.one_of(WORDS, WORDS, BYTES, st.binary(min_size=1, max_size=2).map(lambda one: one * 700))
ESCAPED = BYTES.map(lambda raw: b"".join(b"%%%02x" % byte for byte in raw))
SEGMENTS = st.one_of(
    st.sampled_from([b"a", b"public/x", b"*", b"**", b"..", b"", b"a%2Fb", b"%2C", b"a" * 300]), ESCAPED
)
NUMBERS = st.one_of(WORDS, ESCAPED)

LISTS = st.lists(SEGMENTS, min_size=1, max_size=3).map(lambda items: b"/v1/topics/" + b",".join(items))
HOOKS = st.sampled_from([name.encode() for name in SOURCES]).map(lambda name: b"/hooks/" + name)
_PATHS = b"""
    /v1/topics /v1/messages / /healthz /readyz /topics /client.js /favicon.ico * http://other/v1/topics/a ? # http:// a
    //v1/topics/a /v1//topics/a /%76%31/topics/a /v1/topics/public/x
"""
ANY = st.one_of(
    LISTS,
    st.lists(SEGMENTS, max_size=12).map(lambda parts: b"/" + b"/".join(parts)),
    ESCAPED.map(lambda name: b"//hooks/" + name + b"/"),
    st.sampled_from(_PATHS.split()),
    VALUES,
)
METHODS = st.sampled_from(b"GET POST PUT DELETE HEAD OPTIONS PATCH".split())


def of(method: bytes, paths: st.SearchStrategy[bytes] | bytes) -> st.SearchStrategy[tuple[bytes, bytes]]:
    return st.tuples(st.just(method), st.just(paths) if isinstance(paths, bytes) else paths)


# Most of them are what is there.
TARGETS = st.one_of(
    of(b"GET", LISTS),
    of(
        b"GET",
        st.sampled_from(
            [b"/v1/topics/a", b"/v1/topics/**", b"/v1/topics/public/x,b/*", b"/v1/topics", b"/v1/scheduled"]
        ),
    ),
    of(b"POST", st.sampled_from([b"/v1/topics/a", b"/v1/topics/public/x"])),
    of(b"POST", st.sampled_from([b"/v1/messages", b"/"])),
    of(b"POST", HOOKS),
    of(b"POST", HOOKS),
    of(b"GET", HOOKS),
    of(b"GET", NUMBERS.map(lambda number: b"/v1/messages/" + number)),
    of(b"DELETE", NUMBERS.map(lambda number: b"/v1/scheduled/" + number)),
    st.tuples(METHODS, ANY),
)

PARAMETERS = st.sampled_from(
    b"""after since last last_each before wait limit headers match view title click priority tags delay at in
    idempotency-key a hub.challenge hub.verify_token crc_token challenge validationToken bodySHA256 attach email
    message %61fter""".split()
)
QUERIES = st.lists(st.tuples(PARAMETERS, st.one_of(VALUES, ESCAPED)).map(lambda pair: b"=".join(pair)), max_size=3).map(
    lambda pairs: b"?" + b"&".join(pairs) if pairs else b""
)

FRAMING = st.sampled_from(b"Content-Length Transfer-Encoding Expect Connection Upgrade Host Authorization".split())
NAMES = st.sampled_from(
    b"""Accept Content-Type Content-Type Content-Encoding Origin
    Sec-Fetch-Site Access-Control-Request-Method Access-Control-Request-Headers Last-Event-ID Prefer
    Idempotency-Key X-Idempotency-Key X-Forwarded-For Title X-Title Click Priority X-Priority Tags Delay At In Icon
    Actions Attach X-Varnish Cookie If-None-Match X-Event X-GitHub-Delivery X-Hub-Signature-256 Stripe-Signature
    x-zm-signature x-zm-request-timestamp X-PagerDuty-Signature X-Twilio-Signature I-Twilio-Idempotency-Token X-Sign
    X-At ce-source ce-id WebHook-Request-Origin WebHook-Request-Rate X-Okta-Verification-Challenge X-Request-ID Range
    Sec-WebSocket-Key""".split()
)
FIELDS = st.lists(st.tuples(NAMES, VALUES).map(lambda pair: b": ".join(pair)), max_size=4)
CREDENTIALS = st.sampled_from(
    [
        *[b"Authorization: Bearer " + KEY.encode()] * 3,
        b"Authorization: Basic bm9ib2R5OnRoZS1rZXktb2YtYW4tYWRtaW4=",
        b"Authorization: Bearer " + TOKEN,
        b"Authorization: Bearer " + TOKEN[:-2],
        b"Authorization: Bearer eyJ.eyJ.e",
        b"Authorization: Bearer nk_abcdefghijkl_" + b"A" * 32,
        b"Authorization: Bearer " + HOOK_SECRET.encode(),
        b"Authorization: Basic \xff",
        b"X-Nothing: 1",
    ]
)

TEXTS = st.one_of(
    st.sampled_from(["a", "t/1", "**", "\ud800", "\x00", "evt_1", "url_verification", "10m"]), st.text(max_size=5)
)
_MEMBERS = """
    topic data title click priority tags delay at message id type challenge event payload plainToken repository
    full_name commits source time icon actions
"""
MEMBERS = st.sampled_from(_MEMBERS.split())
DOCUMENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(MEMBERS, TEXTS), inner, max_size=4)),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {"topic": st.one_of(st.just("t"), DOCUMENTS), "data": DOCUMENTS},
    optional={
        **dict.fromkeys(("title", "priority", "tags", "delay", "x"), DOCUMENTS),
        "message": TEXTS,
    },
)
BODIES = st.one_of(
    st.one_of(DOCUMENTS, MESSAGES, st.lists(MESSAGES, max_size=3)).map(lambda found: json.dumps(found).encode()),
    st.lists(MESSAGES, max_size=3).map(lambda found: b"\n".join(json.dumps(one).encode() for one in found)),
    st.lists(st.tuples(BYTES, ESCAPED), max_size=3).map(lambda pairs: b"&".join(b"=".join(pair) for pair in pairs)),
    DOCUMENTS.map(lambda found: b"payload=" + json.dumps(found).encode()),
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"[" * 5000, b"{" * 70, b'"' + b"\\" * 999, b"1" * 500, b"1e999", b'{"a":1,"a":2}', b"\xef\xbb\xbf1"]
    ),
    st.sampled_from([b"[" * 70_000, b'"' + b"x" * 99_990 + b'"', b"x" * 100_001, b"\xff" * 70_000, b"%" * 70_000]),
)


def sign(body: bytes, now: int) -> list[bytes]:
    """As those of these sources sign that only need the body and the time."""

    def mac(signed: bytes, digest: str = "sha256") -> str:
        return hmac.new(HOOK_SECRET.encode(), signed, digest).hexdigest()

    at = str(now)
    return [
        f"X-Hub-Signature-256: sha256={mac(body)}".encode(),
        f"Stripe-Signature: t={at},v1={mac(f'{at}.'.encode() + body)}".encode(),
        f"x-zm-signature: v0={mac(f'v0:{at}:'.encode() + body)}".encode(),
        f"x-zm-request-timestamp: {at}".encode(),
        f"X-PagerDuty-Signature: v1={mac(body)}".encode(),
        f"Authorization: Bearer {HOOK_SECRET}".encode(),
    ]


# What no head may hold, where it may hold anything at all.
_CONTROL = bytes(byte for byte in range(256) if byte < 32 or byte == 127)
_NOT_IN_A_TARGET = re.compile(rb"[^!-~]")


@st.composite
def requests_of(draw: st.DrawFn, last: bool) -> bytes:
    """Most of them are well framed and have the form of HTTP, so that they come as far as they can."""
    wild = draw(st.integers(0, 5)) == 3
    method, target = draw(TARGETS)
    target += draw(QUERIES)
    fields = draw(FIELDS)
    body = draw(BODIES)
    version = b"HTTP/1.1"
    if wild:
        method = draw(st.sampled_from([method, method, b"get", b"", b"\xff"]))
        version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"1.1", b""]))
        fields += [
            b": ".join(field) for field in draw(st.lists(st.tuples(st.one_of(FRAMING, BYTES), VALUES), max_size=2))
        ]
    else:
        target = _NOT_IN_A_TARGET.sub(lambda byte: b"%%%02x" % byte[0][0], target)
        fields = [field.translate(None, _CONTROL) for field in fields]
    signed = target.startswith(b"/hooks/") and draw(st.integers(0, 4)) != 3
    fields += sign(body, int(time.time())) if signed else [draw(CREDENTIALS)]
    if draw(st.integers(0, 4)) == 3:
        fields.append(b"Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif not wild or draw(st.booleans()):
        fields.append(b"Content-Length: %d" % len(body))
    host = [b"Host: localhost"] if not wild or draw(st.booleans()) else []
    return b"\r\n".join(
        [b" ".join([method, target, version]), *host, *[b"Connection: close"] * last, *fields, b"", body]
    )


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """What is sent, in pieces."""
    data = b"".join(draw(st.lists(requests_of(last=False), max_size=2))) + draw(requests_of(last=True))
    if draw(st.integers(0, 9)) == 3:  # one byte is another
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    cuts = sorted({int(cut * len(data)) for cut in draw(st.lists(st.floats(0, 1), max_size=2))})
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


examples = settings(
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # the same each time, unless more are requested
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@examples
@given(conversations())
@pytest.mark.rule("E-1", "E-4", "E-5")
async def test_no_request_is_answered_with_a_failure(
    app: Running, caplog: pytest.LogCaptureFixture, pieces: Sequence[bytes]
) -> None:
    caplog.clear()
    caplog.set_level(logging.INFO)
    received = await told(app, pieces)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] ([1-5]\d\d) ", received)]
    assert all(status < 500 for status in statuses), (pieces, received)
    wrong = [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert not wrong, (pieces, wrong, caplog.text)
    # An admin's key is in no message, unless it was published.
    sent = b"".join(pieces)
    for secret in SECRETS:
        assert secret not in caplog.text.encode()
        assert secret not in received or secret in sent, (pieces, received)


async def told(app: Running, pieces: Sequence[bytes]) -> bytes:
    """All that is answered, until the connection is closed."""
    received = b""
    async with line(app) as raw, asyncio.timeout(DEADLINE_S):
        try:
            for piece in pieces:
                raw.writer.write(piece)
                await raw.writer.drain()
                await asyncio.sleep(0)
            while data := await raw.reader.read(65536):
                received += data
        except ConnectionResetError:
            pass
    return received
