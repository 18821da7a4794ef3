"""Whether a webhook is from its sender: one verifier for the rows of all schemes.

Our own, because the vendors' libraries raise whatever they like on hostile input. Everything here is bytes, and all
comparisons take the same time, whatever matches.
"""

import hmac
import re
from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.util import find_spec
from urllib.parse import urlsplit

from notifier.core.errors import BadSignature, InvalidSource, Unavailable
from notifier.core.messages import FORM, media_type
from notifier.core.webhooks.delivery import Delivery, pairs
from notifier.core.webhooks.schemes import Row
from notifier.core.webhooks.templates import look_up

# In one header: senders sign with two secrets while one is replaced.
MAX_SIGNATURES = 20

_NEEDS = "Signatures of a public key need the package cryptography: pip install 'pg-notifier[crypto]'."

_TELLS_LITTLE = {"a malformed signature": 1, "no signature": 2, "no secret": 3}

_TIMESTAMP = re.compile(rb"[0-9]{1,15}")
_FIELD = re.compile(r"\{(\w+)\}")


def verify(
    rows: Sequence[Row] | None, secrets: Sequence[str], delivery: Delivery, now: float, url: str | None = None
) -> Row | None:
    """The one of `rows` as which `delivery` is signed, with any of `secrets`, over the bytes as they came; BadSignature
    where there is none. `now` is in Unix seconds; `url` is the one that the sender calls, without the query. No rows:
    not signed.

    Unavailable where `rows` is None, and where a package is missing: our own trouble.
    """
    if rows is None:
        raise Unavailable("This server does not know the signature scheme of this source yet. Try again.")
    errors: list[BadSignature] = []
    for row in rows:
        keys = [key for key in (key_of(row, secret) for secret in secrets) if key is not None]
        try:
            if not keys:
                raise _bad(f"This source has no secret for {row.header}", "no secret")
            return _verify(row, keys, delivery, now, url)
        except BadSignature as error:
            errors.append(error)
    if errors:
        # What is wrong with a header that is there tells more than that another one is not.
        raise min(errors, key=lambda error: _TELLS_LITTLE.get(error.reason, 0))
    return None


def id_of(row: Row, delivery: Delivery) -> list[bytes]:
    """The id of a delivery, in which senders repeat themselves, by its parts; empty where it has none, or more than
    one."""
    for alternative in row.id.split("|"):
        parts = [_part(place, delivery) for place in alternative.split()]
        if all(parts):
            return parts
    return []


def _part(place: str, delivery: Delivery) -> bytes:
    if place.startswith("json:"):
        return look_up(delivery.document, place.removeprefix("json:").split(".")).encode()
    found = delivery.values(place)
    return found[0] if len(found) == 1 else b""


def _verify(row: Row, keys: Sequence[bytes], delivery: Delivery, now: float, url: str | None) -> Row:
    given = _one(delivery, row.header, "signature")
    parts = [part.strip() for part in given.split(row.separator.encode())] if row.separator else [given]
    signatures = _behind(row.prefix, parts)
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise _bad(
            f"{row.header} holds no signature as {row.prefix or 'this scheme'} announces it", "a malformed signature"
        )
    timestamp = b"" if row.timestamp.startswith("json:") else _timestamp(row, delivery, parts)
    fits = [
        _fits(row, key, signature, signed)
        for signed in _signed(row, delivery, timestamp, url)
        for key in keys
        for signature in signatures
    ]
    if not any(fits):
        raise _bad(f"{row.header} does not fit the body and the secret of this source", "a bad signature")
    if row.timestamp:
        # After the signature: what it does not cover may be anybody's.
        at = int(timestamp or _timestamp(row, delivery, parts)) / (1000 if row.unit == "ms" else 1)
        if abs(now - at) > row.tolerance_s:
            reason = "an old timestamp" if at < now else "a timestamp in the future"
            raise _bad(f"The request was signed more than {row.tolerance_s} s away from now", reason)
    return row


def _fits(row: Row, key: bytes, signature: bytes, signed: Sequence[bytes]) -> bool:
    if row.digest == "ed25519":
        return _fits_public_key(key, _decoded(signature, row.encoding), b"".join(signed))
    if not row.digest:
        if row.encoding == "basic":
            signature = _decoded(signature, "base64") or b""
            signature = signature if b":" in key else signature.partition(b":")[2]
        return hmac.compare_digest(key, signature)
    if len(signed) == 1:  # the body alone, as most sign: several times as fast for a small one
        digest = hmac.digest(key, signed[0], row.digest)
    else:
        mac = hmac.new(key, digestmod=row.digest)
        for piece in signed:
            mac.update(piece)
        digest = mac.digest()
    if row.encoding == "hex":
        return hmac.compare_digest(digest.hex().encode(), signature.lower())
    return hmac.compare_digest(b64encode(digest), signature)


def _signed(row: Row, delivery: Delivery, timestamp: bytes, url: str | None) -> Iterator[list[bytes]]:
    """What may have been signed, in pieces that are not empty, so that a large body is not copied."""
    values = {"body": delivery.body, "timestamp": timestamp}
    if "{id}" in row.signed:
        values["id"] = _one(delivery, row.id, "id")
    if "{form}" in row.signed:
        values["form"] = _form(delivery)
    # Literals and names, in turn.
    pieces = _FIELD.split(row.signed)
    for each in _urls(url or "", delivery.query) if "{url}" in row.signed else (b"",):
        values["url"] = each
        found = (values[piece] if at % 2 else piece.encode() for at, piece in enumerate(pieces))
        yield [piece for piece in found if piece]


def _timestamp(row: Row, delivery: Delivery, parts: Sequence[bytes]) -> bytes:
    kind, _, name = row.timestamp.partition(":")
    if not row.timestamp:
        return b""
    if kind == "item":
        found = _behind(name, parts)
    elif kind == "json":
        found = [look_up(delivery.document, name.split(".")).encode()]
    else:
        found = [_one(delivery, row.timestamp, "timestamp")]
    if len(found) != 1 or not _TIMESTAMP.fullmatch(found[0]):
        raise _bad("The timestamp of the signature is not one whole number", "a malformed timestamp")
    return found[0]


def _form(delivery: Delivery) -> bytes:
    """Twilio's: names and values of the form in order. Anything else is hashed into the query."""
    if media_type(delivery.content_type) == FORM:
        return b"".join(name + value for name, value in sorted(set(pairs(delivery.body))))
    given = delivery.parameters.get(b"bodySHA256", b"").lower()
    if delivery.body and not hmac.compare_digest(sha256(delivery.body).hexdigest().encode(), given):
        raise _bad("bodySHA256 does not fit the body", "a bad signature")
    return b""


def _urls(url: str, query: bytes) -> Iterator[bytes]:
    """The URL as Twilio may have signed it: as it is set, without the port, with the usual one."""
    parts = urlsplit(url)
    host = parts.netloc.removesuffix(f":{parts.port}") if parts.port else parts.netloc
    usual = 443 if parts.scheme == "https" else 80
    for netloc in dict.fromkeys((parts.netloc, host, f"{host}:{usual}")):
        yield parts._replace(netloc=netloc).geturl().encode() + (b"?" + query if query else b"")


def _one(delivery: Delivery, header: str, what: str) -> bytes:
    found = delivery.values(header)
    if not found:
        raise _bad(f"The request is not signed: it has no {header} header", f"no {what}")
    if len(found) > 1:
        raise _bad(f"The request has more than one {header} header", f"more than one {what}")
    return found[0]


def _behind(prefix: str, parts: Sequence[bytes]) -> list[bytes]:
    raw = prefix.encode().lower()
    return [part[len(raw) :].strip() for part in parts if part[: len(raw)].lower() == raw]


def _bad(text: str, reason: str) -> BadSignature:
    error = BadSignature(f"{text}.")
    error.reason = reason
    return error


# --- keys


def key_of(row: Row, secret: str) -> bytes | None:
    """The key that `secret` is for `row`; None where it is none for that."""
    kind = row.key
    if kind == "text" or (kind == "plain" and not secret.startswith("whsec_")):
        return secret.encode()
    if kind in {"base64", "hex"}:
        return _decoded(secret.encode(), kind)
    if kind == "hex32":
        return _of_size(_decoded(secret.encode(), "hex"), 32, 32)
    if kind == "whpk" and secret.startswith("whpk_"):
        return _of_size(_decoded(secret[5:].encode(), "base64"), 32, 32)
    if (kind == "whsec_" and secret.startswith("whsec_")) or (kind == "whsec" and not secret.startswith("whpk_")):
        return _of_size(_decoded(secret.removeprefix("whsec_").encode(), "base64"), 24, 64)
    return None


def check_secret(rows: Sequence[Row], secret: str) -> None:
    """InvalidSource for what is no secret of these rows, or was not pasted well. It never repeats the secret."""
    if not 1 <= len(secret) <= 1000 or not secret.isprintable():
        raise InvalidSource("A secret has 1 to 1000 printable characters.")
    if secret != secret.strip():
        raise InvalidSource("The secret begins or ends with a space. Paste it again, without.")
    if secret.startswith("v1,"):
        raise InvalidSource(
            "The secret begins with v1, which names its version: leave that out, so that it begins with whsec_."
        )
    fitting = [row for row in rows if key_of(row, secret) is not None]
    if not fitting:
        raise InvalidSource(f"The secret is not {_KINDS[rows[0].key]}.")
    if all(row.digest == "ed25519" for row in fitting) and find_spec("cryptography") is None:
        raise InvalidSource(_NEEDS)


_KINDS = {
    "base64": "base64, as the option key says",
    "hex": "hexadecimal, as the option key says",
    "hex32": "a public key of 64 hexadecimal digits",
    "whsec": "24 to 64 bytes in base64, such as whsec_… (or a public key, whpk_…)",
    "whsec_": "24 to 64 bytes in base64, behind whsec_",
}


def _of_size(key: bytes | None, low: int, high: int) -> bytes | None:
    return key if key is not None and low <= len(key) <= high else None


def _decoded(text: bytes, encoding: str) -> bytes | None:
    """Exactly what an encoder writes; None for anything else."""
    try:
        decoded = bytes.fromhex(text.decode()) if encoding == "hex" else a2b_base64(text, strict_mode=True)
    except (ValueError, Error):
        return None
    again = decoded.hex().encode() if encoding == "hex" else b64encode(decoded)
    return decoded if again == (text.lower() if encoding == "hex" else text) else None


def _fits_public_key(key: bytes, signature: bytes | None, signed: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise Unavailable(_NEEDS) from None
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature or b"", signed)
    except (InvalidSignature, ValueError):
        return False
    return True
