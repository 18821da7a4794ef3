"""What becomes of a webhook: verified, answered where it is a handshake, otherwise a message."""

from notifier.core.errors import BadSignature
from notifier.core.messages import NewMessage
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.handshakes import Reply, answer
from notifier.core.webhooks.kept import message_of
from notifier.core.webhooks.signatures import verify
from notifier.core.webhooks.sources import Source
from notifier.core.webhooks.templates import topic_for

__all__ = ["Reply", "fits", "read"]


def read(source: Source, delivery: Delivery, now: float) -> NewMessage | Reply:
    """BadSignature where it is not from its sender; BadRequest or Forbidden for a handshake that is not answered."""
    asked = source.scheme, source.secrets, source.options, delivery
    if reply := answer("POST", *asked, signed=False):
        return reply
    verify(source.rows, source.secrets, delivery, now, source.options.get("url"))
    if reply := answer("POST", *asked, signed=True):
        return reply
    return message_of(
        delivery,
        topic_for(source.topic, delivery),
        source.name,
        verified=bool(source.rows),
        first=source.telling,
        without=source.secret_headers,
    )


def fits(source: Source, delivery: Delivery, now: float) -> bool:
    """Whether it is from its sender."""
    try:
        verify(source.rows, source.secrets, delivery, now, source.options.get("url"))
    except BadSignature:
        return False
    return True
