"""Sources: the configured senders of webhooks."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from notifier.core.errors import InvalidSource
from notifier.core.webhooks.templates import check_template

SCHEMES = ("github", "none")

# Each secret costs an HMAC over the body; replacing one without a loss needs two at a time.
MAX_SECRETS = 8

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


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
    for secret in secrets:
        check_secret(secret)
    check_template(topic)
    return Source(name, scheme, topic, secrets)


def check_secret(secret: str) -> None:
    """InvalidSource for what is no secret, or was not pasted well."""
    if not 1 <= len(secret) <= 1000 or not secret.isprintable():
        raise InvalidSource("A secret has 1 to 1000 printable characters.")
    if secret != secret.strip():
        raise InvalidSource("The secret begins or ends with a space. Paste it again, without.")


def is_name(name: str) -> bool:
    """Whether a source can have this name."""
    return _NAME.fullmatch(name) is not None
