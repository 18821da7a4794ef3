"""What becomes of a webhook: verified, answered where it is a handshake, otherwise a message."""

from collections.abc import Sequence
from typing import NamedTuple

from notifier.core.errors import BadSignature
from notifier.core.idempotency import Once, of_delivery
from notifier.core.messages import NewMessage
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.handshakes import Reply, answer, signed_for_anyone
from notifier.core.webhooks.kept import message_of
from notifier.core.webhooks.signatures import id_of, verify
from notifier.core.webhooks.sources import Source
from notifier.core.webhooks.templates import topic_for

__all__ = ["Read", "Reply", "fits", "read"]


class Read(NamedTuple):
    """The message, the id of the delivery by its parts, if it has one, and what makes a repeat of it known: without a
    signature nothing does, or strangers could send the ids of webhooks that are still to come."""

    message: NewMessage
    id: Sequence[bytes]
    once: Once | None


def read(source: Source, delivery: Delivery, now: float) -> Read | Reply:
    """BadSignature where it is not from its sender; BadRequest or Forbidden for a handshake that is not answered."""
    asked = source.scheme, source.secrets, source.options, delivery
    if reply := answer("POST", *asked, signed=False):
        return reply
    row = verify(source.rows, source.secrets, delivery, now, source.options.get("url"))
    if signed_for_anyone(source.scheme, delivery.body):
        raise BadSignature("This body is like a challenge, which is signed for anybody: its signature says nothing.")
    if reply := answer("POST", *asked, signed=True):
        return reply
    given_id = id_of(row, delivery) if row else []
    message = message_of(
        delivery,
        topic_for(source.topic, delivery),
        source.name,
        verified=bool(source.rows),
        first=source.telling,
        without=source.secret_headers,
    )
    return Read(message, given_id, of_delivery(source.name, repr(given_id).encode()) if given_id else None)


def fits(source: Source, delivery: Delivery, now: float) -> bool:
    """Whether it is from its sender."""
    try:
        verify(source.rows, source.secrets, delivery, now, source.options.get("url"))
    except BadSignature:
        return False
    return True
