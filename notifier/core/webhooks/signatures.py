"""Whether a webhook is from its sender."""

import hmac

from notifier.core.errors import BadSignature, Unavailable
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.sources import Source


def verify(source: Source, delivery: Delivery) -> None:
    """BadSignature unless the request is signed as the source's scheme demands, over the bytes as they came.

    GitHub signs with `X-Hub-Signature-256: sha256=<hex of HMAC-SHA256>`; any of the source's secrets is accepted.
    """
    if source.scheme == "none":
        return
    if source.scheme != "github":
        raise Unavailable("This server does not know the signature scheme of this source yet. Try again.")
    given = delivery.values("X-Hub-Signature-256")
    if not given:
        raise BadSignature("The request is not signed: it has no X-Hub-Signature-256 header.")
    if len(given) > 1:
        raise BadSignature("The request has more than one X-Hub-Signature-256 header.")
    # Bytes, because compare_digest raises TypeError on text beyond ASCII. A list, because the time that `any` over a
    # generator takes would reveal which secret matched.
    matches = [
        hmac.compare_digest(b"sha256=" + _signature(secret, delivery.body), given[0].lower())
        for secret in source.secrets
    ]
    if not any(matches):
        raise BadSignature("X-Hub-Signature-256 does not fit the body and the secret of this source.")


def _signature(secret: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), body, "sha256").hex().encode()
