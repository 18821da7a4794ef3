"""Handshakes: how senders ask whether an address is theirs to call, as data. What is one is answered, never published.

An answer may repeat what was sent, as text that no browser runs: visible ASCII, 1 kB at most.
"""

import hmac
import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from notifier.core.errors import BadRequest, Forbidden
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.templates import look_up

# No handshake is larger: what is needs no look at its JSON.
MAX_HANDSHAKE = 4096

# What is signed for a vendor must not be a webhook of that vendor, which begins with a brace, or a time and a colon.
# `signed_for_anyone` sees to that.
_TO_SIGN = re.compile(rb"[A-Za-z0-9_+/=.-]{1,200}")
_TO_REPEAT = re.compile(rb"[ -~]{1,1024}")

_GENERAL = ("hmac", "token", "standard", "none")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered, with 200."""

    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handshake:
    """One way to ask. `value` is where the challenge stands: `query:NAME`, `header:NAME` or `json:PATH`.

    `when` are members of the body and what they must be; `alone`: it has no other member than the challenge. `signed`:
    the request is verified like any other. The reply repeats the challenge as `text`, or is `json`, a template in which
    {value} is the challenge, and {hex} and {base64} its HMAC with the newest secret.
    """

    schemes: Sequence[str]
    method: str
    value: str
    when: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    signed: bool = False
    json: str = ""


_SLACK = {"type": "url_verification"}

HANDSHAKES = (
    Handshake(("slack", *_GENERAL), "POST", "json:challenge", _SLACK, signed=True),
    # Monday
    Handshake(_GENERAL, "POST", "json:challenge", alone=True, signed=True, json='{"challenge": {value}}'),
    Handshake(("discord",), "POST", "json:type", {"type": "1"}, signed=True, json='{"type": 1}'),
    Handshake(
        ("zoom",),
        "POST",
        "json:payload.plainToken",
        {"event": "endpoint.url_validation"},
        signed=True,
        json='{"plainToken": {value}, "encryptedToken": {hex}}',
    ),
    # Microsoft Graph; it does not sign.
    Handshake(_GENERAL, "POST", "query:validationToken"),
    # Meta and WebSub
    Handshake(("meta", *_GENERAL), "GET", "query:hub.challenge"),
    Handshake(("x",), "GET", "query:crc_token", json='{"response_token": {base64}}'),
    Handshake(("dropbox", *_GENERAL), "GET", "query:challenge"),
    # Okta
    Handshake(_GENERAL, "GET", "header:X-Okta-Verification-Challenge", json='{"verification": {value}}'),
)


def answer(
    method: str, scheme: str, secrets: Sequence[str], options: Mapping[str, str], delivery: Delivery, *, signed: bool
) -> Reply | None:
    """The reply to a handshake that `scheme` knows; None where `delivery` is none. `signed`: it has been verified.

    BadRequest for a challenge that is not repeated or signed; Forbidden where another `verify_token` is set.
    """
    for row in HANDSHAKES:
        if row.method != method or row.signed is not signed or scheme not in row.schemes or not _is(row, delivery):
            continue
        for value in _values(row, delivery):
            expected = options.get("verify_token")
            given = delivery.parameters.get(b"hub.verify_token", b"")
            if row.value == "query:hub.challenge" and expected and not hmac.compare_digest(expected.encode(), given):
                raise Forbidden("hub.verify_token is not the one that is set for this source.")
            return _reply(row, value, secrets[0] if secrets else "")
    return None


def signed_for_anyone(scheme: str, body: bytes) -> bool:
    """Whether a stranger could have had `body` signed, as a challenge: then its signature says nothing."""
    signing = (row for row in HANDSHAKES if scheme in row.schemes and not row.signed and _signs(row))
    return any(signing) and _TO_SIGN.fullmatch(body) is not None


def allowed(delivery: Delivery) -> Reply | None:
    """The reply to a sender of CloudEvents that asks whether it may (HTTP Webhook, 4); None to any other."""
    origins = delivery.values("WebHook-Request-Origin")
    if len(origins) != 1 or not _TO_REPEAT.fullmatch(origins[0]):
        return None
    headers = {"Allow": "POST", "WebHook-Allowed-Origin": origins[0].decode()}
    if delivery.values("WebHook-Request-Rate"):
        headers["WebHook-Allowed-Rate"] = "*"
    return Reply(headers=headers)


def _is(row: Handshake, delivery: Delivery) -> bool:
    if not row.value.startswith("json:"):
        return True
    if len(delivery.body) > MAX_HANDSHAKE:
        return False
    document = delivery.document
    if row.alone:
        try:
            if len(_MEMBERS.decode(document)) != 1:
                return False
        except msgspec.DecodeError:
            return False
    return all(look_up(document, path.split(".")) == value for path, value in row.when.items())


def _values(row: Handshake, delivery: Delivery) -> Iterator[bytes]:
    """The challenge, if there is one."""
    kind, _, name = row.value.partition(":")
    if kind == "json":
        if found := look_up(delivery.document, name.split(".")):
            yield found.encode()
    elif kind == "header":
        yield from delivery.values(name)[:1]
    elif name.encode() in delivery.parameters:
        yield delivery.parameters[name.encode()]


def _signs(row: Handshake) -> bool:
    return "{hex}" in row.json or "{base64}" in row.json


def _reply(row: Handshake, value: bytes, secret: str) -> Reply:
    if not (_TO_SIGN if _signs(row) else _TO_REPEAT).fullmatch(value):
        raise BadRequest("This challenge is not one that is answered: it is too long, or has characters that none has.")
    if not row.json:
        return Reply(value)
    mac = hmac.digest(secret.encode(), value, "sha256")
    texts = {"value": value.decode(), "hex": mac.hex(), "base64": f"sha256={b64encode(mac).decode()}"}
    filled = re.sub(r"\{(value|hex|base64)\}", lambda match: json.dumps(texts[match[1]]), row.json)
    return Reply(filled.encode(), "application/json")
