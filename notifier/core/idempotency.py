"""Exactly once in: what makes a publish known again, so that a repeat of it stores nothing.

Publishers send an `Idempotency-Key`; of a webhook it is the id of the delivery.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import NamedTuple

from notifier.core.errors import BadRequest
from notifier.core.grants import Grant
from notifier.core.messages import NewMessage
from notifier.core.times import Later

# Stripe tries again for 3 days, Standard Webhooks for 75 hours, and GitHub offers to deliver again for 3 days.
AGE = timedelta(days=4)

_KEY = re.compile(r"[!-~]{1,255}")

# Keys and digests are stored as hashes: ids of vendors may be long. A publisher who made two that collide would only
# fool itself, so half of a digest's usual size will do.
_SIZE = 16


class Once(NamedTuple):
    """What makes a publish known again: a hash of its caller or source and its key, and one of what is published. No
    digest: the key alone tells."""

    key: bytes
    digest: bytes | None = None


def check_key(given: Sequence[str]) -> str | None:
    """The key in the `Idempotency-Key` headers of a request, or None without. BadRequest where it is malformed."""
    if not given:
        return None
    if len(given) > 1:
        raise BadRequest("Idempotency-Key is given twice.")
    if not _KEY.fullmatch(given[0]):
        raise BadRequest("Idempotency-Key has 1 to 255 visible characters of ASCII, such as a random UUID.")
    return given[0]


def of_publish(grant: Grant, key: str, messages: Sequence[NewMessage]) -> Once:
    """Of `messages` that the holder of `grant` publishes with `key`. Equal messages are the same request, by whatever
    method, path or notation they come."""
    return Once(_hash(b"publish", _caller(grant), key.encode()), _digest(messages).digest())


def of_later(grant: Grant, key: str, message: NewMessage, later: Later) -> Once:
    """Of a message that is to be published later. Its key is apart from those of what is published now."""
    digest = _digest([message])
    digest.update(repr(later).encode())
    return Once(_hash(b"later", _caller(grant), key.encode()), digest.digest())


def _caller(grant: Grant) -> str:
    # No token makes an admin: its holder is never the one with the admin key, whatever its subject.
    return f"{'admin' if grant.admin else 'caller'} {grant.subject}"


def _digest(messages: Sequence[NewMessage]) -> blake2b:
    digest = blake2b(digest_size=_SIZE)
    for message in messages:
        beside = (message.topic, len(message.body), message.content_type, message.fields)
        digest.update(repr(beside).encode())
        digest.update(message.body)
    return digest


def of_delivery(source: str, delivery_id: bytes) -> Once:
    """Of a webhook. Senders that try again may write the same event anew, so its bytes do not count."""
    return Once(_hash(b"webhook", source, delivery_id))


def _hash(kind: bytes, scope: str, key: bytes) -> bytes:
    # No subject and no name of a source holds a NUL.
    return blake2b(scope.encode() + b"\0" + key, digest_size=_SIZE, person=kind).digest()
