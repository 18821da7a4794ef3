"""What is kept of a webhook: a message with its bytes as they came, and the headers that a receiver needs."""

import json
import re
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from notifier.core.messages import NewMessage, is_content_type, is_json_type, plain_type
from notifier.core.webhooks.delivery import Delivery, text

# Kept headers go into a row and come back as the headers of a response, each behind KEPT_AS. nginx and others take a
# head of 4 kB from the servers behind them; the rest of it is ours.
KEPT_AS = "Notifier-Header-"
MAX_KEPT_HEADERS = 64
MAX_KEPT_BYTES = 3072

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HEADER_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2: token

# The names that credentials have in use, by their last words: X-Gitlab-Token, Ocp-Apim-Subscription-Key. An event key
# (Bitbucket), a routing key or an author is none.
_CREDENTIALS = """
    accesskey accesstoken apikey authkey authtoken privatekey secretkey auth authentication authorization assertion
    cookie cookie2 credential credentials csrftoken jwt passwd password secret session sessionid token access-key
    account-key api-key app-key auth-key client-key encryption-key function-key functions-key license-key private-key
    secret-key security-key session-id session-key shared-key signing-key subscription-key webhook-key
"""
_CREDENTIAL = frozenset(_CREDENTIALS.split())
# Those that end like one: Twilio's name of a delivery, and a header that switches off a check of Atlassian.
_NO_CREDENTIALS = frozenset({"i-twilio-idempotency-token", "idempotency-token", "x-atlassian-token"})

# Hop-by-hop (RFC 9110, 7.6.1), about the transport, or told elsewhere (the message has a content type).
_TRANSPORT = re.compile(
    r"host|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|expect|content-(length|type|encoding)"
    r"|accept|accept-encoding|forwarded|x-forwarded-.*|x-real-ip|via|x-request-start|connect-time|total-route-time"
    r"|cdn-loop|cf-.*|fly-.*|x-heroku-.*|x-amzn-trace-id|x-cloud-trace-context|traceparent|tracestate"
)

# What tells a receiver what has happened, and whether it is true: kept before anything else.
_TELLING = """
    signature signature-256 signature-v2 hmac sha256 event events delivery timestamp topic type kind action resource
    id uuid event-key
"""
_TELLS = frozenset(_TELLING.split())


class Kept(NamedTuple):
    """What is kept beside the body of a webhook."""

    headers: list[tuple[str, str]]
    source: str
    verified: bool


class _Stored(msgspec.Struct):
    headers: msgspec.Raw


_HEADERS = msgspec.json.Decoder(_Stored)


def message_of(
    delivery: Delivery,
    topic: str,
    source: str,
    *,
    verified: bool,
    first: Collection[str] = (),
    without: Collection[str] = (),
) -> NewMessage:
    """The message that a webhook becomes. Its bytes are kept whatever they are.

    What claims to be JSON, and cannot be read as such by every reader, is shown as text or bytes, and the type that it
    came with is kept with the headers. A malformed type counts as none.
    """
    kept = kept_headers(delivery, first, without)
    given: str | None = delivery.content_type
    if not given or not is_content_type(given):
        shown = None if delivery.is_json else plain_type(delivery.body)
    elif not is_json_type(given):
        shown = given
    elif delivery.is_json:
        shown = None if given.lower() == "application/json" else given
    else:
        shown = plain_type(delivery.body)
        kept.insert(0, ("Content-Type", given))
    beside = Kept(kept, source, verified)._asdict()
    return NewMessage(topic, delivery.body, shown, headers=json.dumps(beside, ensure_ascii=False))


def kept_of(stored: str | None) -> Kept | None:
    """What `message_of` has stored as `headers`; None for what is no webhook."""
    if stored is None:
        return None
    try:
        return Kept(**json.loads(stored))
    except (TypeError, ValueError):  # it came by another way
        return None


def headers_of(stored: str | None) -> bytes | None:
    """Of what `message_of` has stored as `headers`, the JSON array of them alone; None for what is no webhook."""
    if stored is None:
        return None
    try:
        return bytes(_HEADERS.decode(stored).headers)
    except msgspec.DecodeError:  # it came by another way, and must not keep others from their messages
        return None


def kept_headers(
    delivery: Delivery, first: Collection[str] = (), without: Collection[str] = ()
) -> list[tuple[str, str]]:
    """The headers worth keeping: no credentials (by their names, and none of `without`), nothing about the transport,
    no control characters, at most 64, and few enough bytes to be the head of an answer. Those of `first` come before
    those with a telling name, and those before all others; otherwise they are in order. What does not fit is left out.

    The names of `first` and `without` are in small letters."""
    hop_by_hop = {name.strip().lower() for name in delivery.header("connection").split(",")}
    dropped = hop_by_hop.union(without)
    found: list[tuple[int, str, str]] = []
    for raw_name, raw_value in delivery.headers:
        name = raw_name.decode("latin-1")
        low = name.lower()
        if not _HEADER_NAME.fullmatch(raw_name) or low in dropped or is_credential(name) or _TRANSPORT.fullmatch(low):
            continue
        rank = 0 if low in first else 1 if _is_telling(low) else 2
        found.append((rank, name, _CONTROL.sub(" ", text(raw_value)).strip()))
    kept: list[tuple[str, str]] = []
    room = MAX_KEPT_BYTES
    for _, name, value in sorted(found, key=lambda header: header[0]):
        size = len(f"{KEPT_AS}{name}: \r\n") + len(value.encode())
        if size <= room and len(kept) < MAX_KEPT_HEADERS:
            kept.append((name, value))
            room -= size
    return kept


def is_credential(name: str) -> bool:
    """Whether a header or parameter of that name holds a credential."""
    words = name.lower().replace("_", "-").split("-")
    return "-".join(words) not in _NO_CREDENTIALS and not _CREDENTIAL.isdisjoint({words[-1], "-".join(words[-2:])})


def _is_telling(name: str) -> bool:
    words = name.split("-")
    return not _TELLS.isdisjoint({words[-1], "-".join(words[-2:])}) or name.startswith(("ce-", "webhook-", "svix-"))
