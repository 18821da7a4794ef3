"""Sources: the configured senders of webhooks."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from notifier.core.errors import InvalidSource
from notifier.core.webhooks.schemes import Row, rows_of
from notifier.core.webhooks.signatures import check_secret
from notifier.core.webhooks.templates import check_template

# Each secret costs an HMAC over the body; replacing one without a loss needs two at a time.
MAX_SECRETS = 8

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Source:
    """A configured sender of webhooks. `check_source` makes valid ones. The first secret is the newest; the others
    stop counting at `old_until`, if that is set."""

    name: str
    scheme: str
    topic: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    old_until: datetime | None = None

    @cached_property
    def rows(self) -> tuple[Row, ...] | None:
        """How it signs; None where this version does not know that (a newer one has added it)."""
        try:
            return rows_of(self.scheme, self.options)
        except InvalidSource:
            return None

    @cached_property
    def telling(self) -> frozenset[str]:
        """The headers, in small letters, that sign, and that say which delivery and event it is."""
        named = ((row.header, row.timestamp, *re.split("[ |]", row.id), row.event) for row in self.rows or ())
        return frozenset(name.lower() for names in named for name in names if name and ":" not in name)

    @cached_property
    def secret_headers(self) -> frozenset[str]:
        """The headers, in small letters, that hold the secret itself."""
        return frozenset(row.header.lower() for row in self.rows or () if not row.digest)


def check_source(
    name: str, scheme: str, topic: str, secrets: Iterable[str] = (), options: Mapping[str, str] | None = None
) -> Source:
    """The source, or InvalidSource with a sentence that says what is wrong. No error repeats a secret."""
    source = Source(name, scheme, topic, tuple(secrets), dict(options or {}))
    if not is_name(name):
        raise InvalidSource(
            "The name of a source begins with a small letter or digit and has at most 63 of a-z 0-9 _ and -."
        )
    rows = rows_of(scheme, source.options)
    if rows and not source.secrets:
        raise InvalidSource(f"The scheme {scheme} needs the secret that the sender signs with.")
    if not rows and source.secrets:
        raise InvalidSource(f"The scheme {scheme} checks no signature, so a secret would protect nothing.")
    if len(source.secrets) > MAX_SECRETS:
        raise InvalidSource(f"A source has at most {MAX_SECRETS} secrets.")
    for secret in source.secrets:
        check_secret(rows, secret)
    check_template(topic)
    return source


def is_name(name: str) -> bool:
    """Whether a source can have this name."""
    return _NAME.fullmatch(name) is not None
