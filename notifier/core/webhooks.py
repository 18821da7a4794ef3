"""Webhook sources: whether a request is from its sender, which topic it goes to, which of its headers are kept.

Headers are raw, as they came: `(name, value)` in bytes. Whatever a sender puts into headers or body, `verify`
raises nothing but BadSignature, and `topic_for` and `kept_headers` raise nothing at all.
"""

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from notifier.core.errors import BadSignature, InvalidSource, InvalidTopic
from notifier.core.percent import unquote
from notifier.core.strict_json import is_json
from notifier.core.topics import MAX_TOPIC, check_topic

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

SCHEMES = ("github", "none")

# Each secret costs an HMAC over the body; replacing one without a loss needs two at a time.
MAX_SECRETS = 8
# Kept headers are bounded, because they go into a row and come back as response headers: proxies
# accept at most 8 kB of those.
MAX_KEPT_HEADERS = 64
MAX_KEPT_BYTES = 8192

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_FIELD = re.compile(r"\{(?:header:([A-Za-z0-9_-]+)|([A-Za-z0-9_$@+-]+(?:\.[A-Za-z0-9_$@+-]+)*))\}")
_NOT_IN_A_TOPIC = re.compile(r"[^A-Za-z0-9_.:@=+/-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HEADER_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2: token

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])

_CREDENTIAL = re.compile(r"token|secret|passw|credential|session|cookie|jwt|assertion|\bauth|(?<!idempotency-)key\b")
# Hop-by-hop (RFC 9110, 7.6.1), about the transport, or told elsewhere (the message has a content type).
_TRANSPORT = re.compile(
    r"host|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|expect|content-(length|type|encoding)"
    r"|accept|accept-encoding|forwarded|x-forwarded-.*|x-real-ip|via|x-request-start|connect-time|total-route-time"
    r"|cdn-loop|cf-.*|fly-.*|x-heroku-.*|x-amzn-trace-id|x-cloud-trace-context|traceparent|tracestate"
)


@dataclass(frozen=True)
class Source:
    """A configured sender of webhooks. `check_source` makes valid ones."""

    name: str
    scheme: str
    topic: str
    secrets: tuple[str, ...] = field(default=(), repr=False)


def check_source(name: str, scheme: str, topic: str, secrets: Iterable[str] = ()) -> Source:
    """The source, or InvalidSource with a sentence that says what is wrong. No error repeats a secret."""
    secrets = tuple(secrets)
    if not is_name(name):
        raise InvalidSource(
            "The name of a source begins with a small letter or digit and has at most 63 of a-z 0-9 _ and -."
        )
    if scheme not in SCHEMES:
        raise InvalidSource(f"There is no scheme {scheme!r}; there are: {', '.join(SCHEMES)}.")
    if scheme == "github" and not secrets:
        raise InvalidSource("The scheme github needs the secret that GitHub signs with.")
    if scheme == "none" and secrets:
        raise InvalidSource("The scheme none checks no signature, so a secret would protect nothing.")
    if len(secrets) > MAX_SECRETS:
        raise InvalidSource(f"A source has at most {MAX_SECRETS} secrets.")
    if not all(1 <= len(secret) <= 1000 and secret.isprintable() for secret in secrets):
        raise InvalidSource("A secret has 1 to 1000 printable characters.")
    _check_template(topic)
    return Source(name, scheme, topic, secrets)


def is_name(name: str) -> bool:
    """Whether a source can have this name."""
    return _NAME.fullmatch(name) is not None


def _check_template(template: str) -> None:
    if len(template) > MAX_TOPIC:
        raise InvalidSource(f"A topic template has at most {MAX_TOPIC} characters.")
    if {"{", "}"} & set(_FIELD.sub("", template)):
        raise InvalidSource(
            "In a topic template, braces hold a JSON field such as {repository.full_name} "
            "or a header such as {header:X-GitHub-Event}."
        )
    for header, _ in _FIELD.findall(template):
        if _is_credential(header):
            raise InvalidSource(f"The header {header} may hold a credential: it cannot be part of a topic.")
    try:
        check_topic(_FIELD.sub("_", template))
    except InvalidTopic as error:
        raise InvalidSource(f"This template yields no topic, whatever its fields contain. {error}") from None


def verify(source: Source, headers: Headers, body: bytes) -> None:
    """BadSignature unless the request is signed as the source's scheme demands, over the bytes as they came.

    GitHub signs with `X-Hub-Signature-256: sha256=<hex of HMAC-SHA256>`; any of the source's secrets is accepted.
    """
    if source.scheme == "none":
        return
    if source.scheme != "github":
        # A row that a newer version has written: this version cannot check it.
        raise BadSignature("This server does not know the signature scheme of this source.")
    given = [value for name, value in headers if name.lower() == b"x-hub-signature-256"]
    if not given:
        raise BadSignature("The request is not signed: it has no X-Hub-Signature-256 header.")
    if len(given) > 1:
        raise BadSignature("The request has more than one X-Hub-Signature-256 header.")
    # Bytes, because compare_digest raises TypeError on text beyond ASCII. A list, because the time that `any` over a
    # generator takes would reveal which secret matched.
    matches = [
        hmac.compare_digest(b"sha256=" + _signature(secret, body), given[0].strip().lower())
        for secret in source.secrets
    ]
    if not any(matches):
        raise BadSignature("X-Hub-Signature-256 does not fit the body and the secret of this source.")


def _signature(secret: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), body, "sha256").hex().encode()


def topic_for(source: Source, headers: Headers, body: bytes) -> str:
    """The source's template, filled in: always a topic. What a topic cannot hold and what is missing become `_`."""
    fields = _FIELD.findall(source.topic)
    document = _document(headers, body) if any(path for _, path in fields) else b"null"

    def value(match: re.Match[str]) -> str:
        header, path = match.groups()
        found = _header(headers, header) if header else _look_up(document, path)
        return found[:MAX_TOPIC] or "_"

    topic = _NOT_IN_A_TOPIC.sub("_", _FIELD.sub(value, source.topic)[:MAX_TOPIC])
    # Again after the cut, which may leave a dot alone in the last segment.
    return _mend_segments(_mend_segments(topic)[:MAX_TOPIC].rstrip("/"))


def _mend_segments(topic: str) -> str:
    return "/".join("_" if segment in {"", ".", ".."} else segment for segment in topic.split("/"))


def _header(headers: Headers, wanted: str) -> str:
    raw = wanted.lower().encode()
    return next((value.decode("latin-1") for name, value in headers if name.lower() == raw), "")


def _document(headers: Headers, body: bytes) -> bytes:
    """The JSON that the body is, or that it carries as the `payload` of a form (GitHub's other way); null if none."""
    if _header(headers, "content-type").lower().startswith("application/x-www-form-urlencoded"):
        payload = next((part[8:] for part in body.split(b"&") if part.startswith(b"payload=")), None)
        body = body if payload is None else unquote(payload.replace(b"+", b" "))
    return body if is_json(body) else b"null"


def _look_up(document: bytes, path: str) -> str:
    """The value at `path`, as text; a number as it is written. Nothing else is decoded: as Python
    objects, a body may take forty times its size."""
    found: bytes | msgspec.Raw = document
    try:
        for step in path.split("."):
            try:
                found = _OBJECT.decode(found)[step]
            except msgspec.ValidationError:  # no object
                found = _LIST.decode(found)[int(step)]
    except (KeyError, IndexError, ValueError):
        return ""
    value = bytes(found).strip()
    if value.startswith(b'"'):
        return str(msgspec.json.decode(value))
    return "" if value.startswith((b"{", b"[", b"null")) else value.decode()


def kept_headers(headers: Headers) -> list[tuple[str, str]]:
    """The headers worth keeping with a webhook, in order: no credentials, nothing about the transport, no
    control characters, at most 64 and 8 kB. What does not fit is left out."""
    hop_by_hop = {name.strip().lower() for name in _header(headers, "connection").split(",")}
    kept: list[tuple[str, str]] = []
    room = MAX_KEPT_BYTES
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1")
        if not _HEADER_NAME.fullmatch(raw_name) or _is_credential(name):
            continue
        if name.lower() in hop_by_hop or _TRANSPORT.fullmatch(name.lower()):
            continue
        value = _CONTROL.sub(" ", _text(raw_value)).strip()
        size = len(name) + len(value.encode())
        if size <= room and len(kept) < MAX_KEPT_HEADERS:
            kept.append((name, value))
            room -= size
    return kept


def _is_credential(header: str) -> bool:
    return _CREDENTIAL.search(header.lower().replace("_", "-")) is not None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
