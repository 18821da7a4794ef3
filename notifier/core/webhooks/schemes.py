"""Schemes: how senders show that a webhook is theirs, as data that `signatures` reads.

A scheme has one or more rows, of which one must fit. `hmac`, `token` and `standard` are general; the others are those
of vendors, by their documentation. What differs from source to source is an option.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from notifier.core.errors import InvalidSource


@dataclass(frozen=True, slots=True)
class Row:
    """One way to sign.

    `header` holds the signature behind `prefix`; where there is a `separator`, several. What is signed is `signed`,
    filled in. `digest` is that of an HMAC, or ed25519; without one, the header holds the secret itself. `key` says how
    a secret is written. `timestamp` and `id` (of the delivery: the same when it is sent again, and never that of
    another) are names of headers, or begin with `json:` (a member of the body); a timestamp also with `item:` (a part
    of `header`). An id may have several parts, separated by a space, and alternatives, by `|`. `event` is a header.
    """

    header: str
    prefix: str = ""
    separator: str = ""
    signed: str = "{body}"
    digest: str = "sha256"
    encoding: str = "hex"
    key: str = "text"
    timestamp: str = ""
    unit: str = "s"
    tolerance_s: int = 300
    id: str = ""
    event: str = ""


def _standard(key: str, *prefixes: str) -> tuple[Row, ...]:
    """Standard Webhooks 1.0, with an HMAC or a public key: https://www.standardwebhooks.com"""
    row = Row("", "v1,", " ", "{id}.{timestamp}.{body}", encoding="base64", key=key)
    public = replace(row, prefix="v1a,", digest="ed25519", key="whpk")
    return tuple(
        replace(each, header=f"{prefix}signature", timestamp=f"{prefix}timestamp", id=f"{prefix}id")
        for prefix in prefixes
        for each in (row, public)
    )


_BEARER = Row("Authorization", "Bearer ", digest="", encoding="plain")
_BASIC = Row("Authorization", "Basic ", digest="", encoding="basic")

SCHEMES: Mapping[str, tuple[Row, ...]] = {
    "hmac": (Row(""),),
    "token": (_BEARER,),
    "standard": _standard("whsec", "webhook-", "svix-"),
    "alertmanager": (_BEARER, _BASIC),
    "bitbucket": (Row("X-Hub-Signature", "sha256=", id="X-Request-UUID", event="X-Event-Key"),),
    # Alone, its id may be that of another source's event.
    "cloudevents": (replace(_BEARER, id="ce-source ce-id|json:source json:id", event="ce-type"),),
    "discord": (
        Row(
            "X-Signature-Ed25519",
            signed="{timestamp}{body}",
            digest="ed25519",
            key="hex32",
            timestamp="X-Signature-Timestamp",
        ),
    ),
    "dropbox": (Row("X-Dropbox-Signature"),),
    "gitea": (Row("X-Gitea-Signature", id="X-Gitea-Delivery", event="X-Gitea-Event"),),
    "github": (Row("X-Hub-Signature-256", "sha256=", id="X-GitHub-Delivery", event="X-GitHub-Event"),),
    # A signing token is as in Standard Webhooks; a secret token comes as it is.
    "gitlab": (
        *_standard("whsec_", "webhook-"),
        Row("X-Gitlab-Token", digest="", encoding="plain", key="plain", id="Idempotency-Key", event="X-Gitlab-Event"),
    ),
    "grafana": (Row("X-Grafana-Alerting-Signature"),),
    "heroku": (Row("Heroku-Webhook-Hmac-SHA256", encoding="base64", id="json:id"),),
    "linear": (
        Row(
            "Linear-Signature",
            timestamp="json:webhookTimestamp",
            unit="ms",
            tolerance_s=60,
            id="Linear-Delivery",
            event="Linear-Event",
        ),
    ),
    "meta": (Row("X-Hub-Signature-256", "sha256="),),
    "pagerduty": (Row("X-PagerDuty-Signature", "v1=", ",", id="json:event.id"),),
    "sentry": (Row("Sentry-Hook-Signature", id="Request-ID", event="Sentry-Hook-Resource"),),
    "shopify": tuple(
        Row(f"{x}Shopify-Hmac-Sha256", encoding="base64", id=f"{x}Shopify-Webhook-Id", event=f"{x}Shopify-Topic")
        for x in ("X-", "")
    ),
    "slack": (
        Row(
            "X-Slack-Signature",
            "v0=",
            signed="v0:{timestamp}:{body}",
            timestamp="X-Slack-Request-Timestamp",
            id="json:event_id",
        ),
    ),
    # Its secret begins with whsec_ too, and is used as it is.
    "stripe": (Row("Stripe-Signature", "v1=", ",", "{timestamp}.{body}", timestamp="item:t=", id="json:id"),),
    "twilio": (
        Row(
            "X-Twilio-Signature",
            signed="{url}{form}",
            digest="sha1",
            encoding="base64",
            id="I-Twilio-Idempotency-Token",
        ),
    ),
    # X-WC-Webhook-Delivery-ID is no id: all that a webhook delivers in one second has the same.
    "woocommerce": (Row("X-WC-Webhook-Signature", encoding="base64", event="X-WC-Webhook-Topic"),),
    "x": (Row("x-twitter-webhooks-signature", "sha256=", encoding="base64"),),
    "zoom": (Row("x-zm-signature", "v0=", signed="v0:{timestamp}:{body}", timestamp="x-zm-request-timestamp"),),
    "none": (),
}

# --- options

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_FIELD = re.compile(rf"{_HEADER.pattern}|json:[A-Za-z0-9_.$-]{{1,100}}")
_PLACE = re.compile(rf"{_FIELD.pattern}|item:[!-~]{{1,20}}")


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise InvalidSource(f"must be {what}")
        return value

    return check


def _one_of(*values: str) -> Callable[[str], str]:
    return _matching(re.compile("|".join(values)), f"one of {', '.join(values)}")


def _tolerance(value: str) -> int:
    return int(_matching(re.compile(r"[1-9][0-9]{0,5}", re.ASCII), "a number of seconds")(value))


def _signed(value: str) -> str:
    named = re.findall(r"\{([^}]*)\}", value)
    if not value.isprintable() or len(value) > 200 or "body" not in named or set(named) - {"body", "timestamp", "id"}:
        raise InvalidSource("must contain {body}, and perhaps {timestamp} and {id}")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        known = parts.scheme in {"https", "http"} and parts.hostname and parts.port != 0 and value.isascii()
    except ValueError:
        known = False
    if not known or "?" in value or "#" in value or "@" in parts.netloc or not value.isprintable():
        raise InvalidSource(
            "must be the URL that the sender calls, such as https://example.com/hooks/sms, without a query"
        )
    return value


_ID = _matching(_FIELD, "a header or json:FIELD")
_header = _matching(_HEADER, "the name of a header")
_FREE = _matching(re.compile(r"[ -~]{1,100}"), "1 to 100 characters of ASCII")

# The options of each scheme, and which member of its rows each of them sets; those with `!` must be given.
_OPTIONS: Mapping[str, Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "hmac": {
        "header!": ("header", _header),
        "prefix": ("prefix", _FREE),
        "separator": ("separator", _matching(re.compile("[ ,;]"), "a space, a comma or a semicolon")),
        "signed": ("signed", _signed),
        "digest": ("digest", _one_of("sha256", "sha1", "sha384", "sha512")),
        "encoding": ("encoding", _one_of("hex", "base64")),
        "key": ("key", _one_of("text", "base64", "hex")),
        "timestamp": ("timestamp", _matching(_PLACE, "a header, json:FIELD or item:PREFIX")),
        "unit": ("unit", _one_of("s", "ms")),
        "tolerance": ("tolerance_s", _tolerance),
        "id": ("id", _ID),
    },
    "token": {
        "header": ("header", _header),
        "id": ("id", _ID),
        "as": ("encoding", _one_of("bearer", "basic", "plain")),
    },
    "grafana": {"header": ("header", _header), "timestamp": ("timestamp", _header)},
    "meta": {"verify_token": ("", _FREE)},
    "twilio": {"url!": ("", _url)},
}


def rows_of(scheme: str, options: Mapping[str, str]) -> tuple[Row, ...]:
    """The rows of a scheme with its options. InvalidSource with a sentence for what is not known, or malformed."""
    if scheme not in SCHEMES:
        raise InvalidSource(f"There is no scheme {scheme[:40]!r}; there are: {', '.join(SCHEMES)}.")
    known = _OPTIONS.get(scheme, {})
    changes: dict[str, object] = {}
    for name, value in options.items():
        member, check = known.get(name) or known.get(f"{name}!") or ("", None)
        if check is None:
            names = ", ".join(each.rstrip("!") for each in known) or "none"
            raise InvalidSource(f"The scheme {scheme} has no option {name[:40]!r}; it has: {names}.")
        try:
            changes[member] = check(value)
        except InvalidSource as error:
            raise InvalidSource(f"The option {name} {error}.") from None
    for name in known:
        if name.endswith("!") and name[:-1] not in options:
            raise InvalidSource(f"The scheme {scheme} needs the option {name[:-1]}.")
    changes.pop("", None)
    rows = SCHEMES[scheme]
    if scheme == "token":
        shape = changes.pop("encoding", "plain" if "header" in changes else "bearer")
        base = _BASIC if shape == "basic" else _BEARER if shape == "bearer" else replace(_BEARER, prefix="")
        rows = (base,)
    if scheme == "grafana" and "timestamp" in changes:
        changes["signed"] = "{timestamp}:{body}"
    if scheme == "hmac":
        row = replace(rows[0], **changes)  # type: ignore[arg-type]
        for name, place in (("timestamp", row.timestamp), ("id", row.id)):
            if f"{{{name}}}" in row.signed and (not place or place.startswith("json:")):
                raise InvalidSource(f"The option signed has {{{name}}}, so the option {name} must name a header.")
        if row.timestamp and not row.timestamp.startswith("json:") and "{timestamp}" not in row.signed:
            raise InvalidSource("The option signed must have {timestamp}: otherwise anybody could change that.")
        if row.timestamp.startswith("item:") and not row.separator:
            raise InvalidSource("A timestamp that is an item of the header needs the option separator.")
        return (row,)
    return tuple(replace(row, **changes) for row in rows)  # type: ignore[arg-type]
