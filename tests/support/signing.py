"""How each vendor signs, written down once more from its documentation, apart from the tables of the service."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORM = "application/x-www-form-urlencoded"
URL = "https://example.com/hooks/sms"
PLAIN = "a test secret"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()

Headers = dict[str, str]


def mac(secret: str | bytes, *pieces: str | bytes, digest: str = "sha256") -> bytes:
    raw = [piece.encode() if isinstance(piece, str) else piece for piece in (secret, *pieces)]
    return hmac.digest(raw[0], b"".join(raw[1:]), digest)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass(frozen=True)
class Signer:
    """`sign(body, now)` gives the headers of a request; `header` is the one that holds the signature, and `timed` the
    one that holds a time that is checked."""

    scheme: str
    secret: str
    header: str
    sign: Callable[[bytes, int], Headers]
    timed: str = ""
    options: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"id": "evt_1", "event_id": "Ev1", "x": "\\u00e9"}'
    content_type: str = "application/json"
    query: str = ""


def _standard(prefix: str) -> Callable[[bytes, int], Headers]:
    def sign(body: bytes, now: int) -> Headers:
        signature = b64(mac(base64.b64decode(WHSEC[6:]), f"msg_1.{now}.", body))
        return {f"{prefix}id": "msg_1", f"{prefix}timestamp": str(now), f"{prefix}signature": f"v1,{signature}"}

    return sign


def _public_standard(body: bytes, now: int) -> Headers:
    signature = b64(PRIVATE.sign(f"msg_1.{now}.".encode() + body))
    return {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": f"v1,AAAA v1a,{signature}"}


def _slack(prefix: str, timed: str) -> Callable[[bytes, int], Headers]:
    return lambda body, now: {prefix: "v0=" + mac(PLAIN, f"v0:{now}:", body).hex(), timed: str(now)}


def _twilio(body: bytes, _: int) -> Headers:
    form = "".join(
        name + value for name, value in sorted(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    )
    return {"X-Twilio-Signature": b64(mac(PLAIN, URL, form, digest="sha1"))}


LINEAR = b'{"action": "create", "webhookTimestamp": %d000}'
SIGNERS = {
    f"{signer.scheme}, {signer.header}": signer
    for signer in (
        Signer("standard", WHSEC, "webhook-signature", _standard("webhook-"), "webhook-timestamp"),
        Signer("standard", WHSEC, "svix-signature", _standard("svix-"), "svix-timestamp"),
        Signer(
            "hmac",
            PLAIN,
            "X-Sign",
            lambda body, now: {"X-Sign": f"s={now};d={b64(mac(PLAIN, f'{now}|', body, digest='sha512'))}"},
            options={
                "header": "X-Sign",
                "prefix": "d=",
                "separator": ";",
                "signed": "{timestamp}|{body}",
                "digest": "sha512",
                "encoding": "base64",
                "timestamp": "item:s=",
                "tolerance": "30",
            },
        ),
        Signer("token", PLAIN, "Authorization", lambda *_: {"Authorization": f"Bearer {PLAIN}"}),
        Signer("token", PLAIN, "X-My-Hook", lambda *_: {"X-My-Hook": PLAIN}, options={"header": "X-My-Hook"}),
        Signer(
            "alertmanager",
            "me:pass:word",
            "Authorization",
            lambda *_: {"Authorization": f"Basic {b64(b'me:pass:word')}"},
        ),
        Signer("cloudevents", PLAIN, "Authorization", lambda *_: {"Authorization": f"bearer {PLAIN}"}),
        Signer(
            "bitbucket", PLAIN, "X-Hub-Signature", lambda b, _: {"X-Hub-Signature": f"sha256={mac(PLAIN, b).hex()}"}
        ),
        Signer(
            "discord",
            PUBLIC.hex(),
            "X-Signature-Ed25519",
            lambda body, now: {
                "X-Signature-Ed25519": PRIVATE.sign(str(now).encode() + body).hex(),
                "X-Signature-Timestamp": str(now),
            },
            "X-Signature-Timestamp",
        ),
        Signer("dropbox", PLAIN, "X-Dropbox-Signature", lambda b, _: {"X-Dropbox-Signature": mac(PLAIN, b).hex()}),
        Signer("gitea", PLAIN, "X-Gitea-Signature", lambda b, _: {"X-Gitea-Signature": mac(PLAIN, b).hex()}),
        Signer(
            "github",
            PLAIN,
            "X-Hub-Signature-256",
            lambda b, _: {"X-Hub-Signature-256": f"sha256={mac(PLAIN, b).hex()}"},
        ),
        Signer(
            "meta", PLAIN, "X-Hub-Signature-256", lambda b, _: {"X-Hub-Signature-256": f"sha256={mac(PLAIN, b).hex()}"}
        ),
        Signer("gitlab", PLAIN, "X-Gitlab-Token", lambda *_: {"X-Gitlab-Token": PLAIN}),
        Signer("gitlab", WHSEC, "webhook-signature", _standard("webhook-"), "webhook-timestamp"),
        Signer(
            "grafana",
            PLAIN,
            "X-Grafana-Alerting-Signature",
            lambda b, _: {"X-Grafana-Alerting-Signature": mac(PLAIN, b).hex()},
        ),
        Signer(
            "grafana",
            PLAIN,
            "X-Sig",
            lambda b, now: {"X-Sig": mac(PLAIN, f"{now}:", b).hex(), "X-Time": str(now)},
            "X-Time",
            options={"header": "X-Sig", "timestamp": "X-Time"},
        ),
        Signer(
            "heroku",
            PLAIN,
            "Heroku-Webhook-Hmac-SHA256",
            lambda b, _: {"Heroku-Webhook-Hmac-SHA256": b64(mac(PLAIN, b))},
        ),
        Signer(
            "linear", PLAIN, "Linear-Signature", lambda b, _: {"Linear-Signature": mac(PLAIN, b).hex()}, body=LINEAR
        ),
        Signer(
            "pagerduty",
            PLAIN,
            "X-PagerDuty-Signature",
            lambda b, _: {"X-PagerDuty-Signature": f"v1={'0' * 64},v1={mac(PLAIN, b).hex()}"},
        ),
        Signer("sentry", PLAIN, "Sentry-Hook-Signature", lambda b, _: {"Sentry-Hook-Signature": mac(PLAIN, b).hex()}),
        Signer("shopify", PLAIN, "X-Shopify-Hmac-Sha256", lambda b, _: {"X-Shopify-Hmac-Sha256": b64(mac(PLAIN, b))}),
        Signer("shopify", PLAIN, "Shopify-Hmac-Sha256", lambda b, _: {"Shopify-Hmac-Sha256": b64(mac(PLAIN, b))}),
        Signer(
            "slack",
            PLAIN,
            "X-Slack-Signature",
            _slack("X-Slack-Signature", "X-Slack-Request-Timestamp"),
            "X-Slack-Request-Timestamp",
        ),
        Signer(
            "zoom",
            PLAIN,
            "x-zm-signature",
            _slack("x-zm-signature", "x-zm-request-timestamp"),
            "x-zm-request-timestamp",
        ),
        Signer(
            "stripe",
            WHSEC,
            "Stripe-Signature",
            lambda b, now: {"Stripe-Signature": f"t={now},v1={mac(WHSEC, f'{now}.', b).hex()},v0=00"},
        ),
        Signer(
            "twilio",
            PLAIN,
            "X-Twilio-Signature",
            _twilio,
            options={"url": URL},
            body=b"To=%2B18005551212&From=%2B14158675309&Body=a+b&Empty=&Body2=%C3%A9",
            content_type=FORM,
        ),
        Signer(
            "woocommerce", PLAIN, "X-WC-Webhook-Signature", lambda b, _: {"X-WC-Webhook-Signature": b64(mac(PLAIN, b))}
        ),
        Signer(
            "x",
            PLAIN,
            "x-twitter-webhooks-signature",
            lambda b, _: {"x-twitter-webhooks-signature": f"sha256={b64(mac(PLAIN, b))}"},
        ),
    )
}
PUBLIC_STANDARD = Signer("standard", f"whpk_{b64(PUBLIC)}", "webhook-signature", _public_standard, "webhook-timestamp")
SIGNERS["standard, a public key"] = PUBLIC_STANDARD


def body_of(signer: Signer, now: int) -> bytes:
    """What it sends at `now` (Unix seconds)."""
    return signer.body % now if signer.body is LINEAR else signer.body


def sha256_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
