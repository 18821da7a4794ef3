"""Every setting: its name in the environment, its default and its bounds. Nothing else reads the environment."""

import ipaddress
import os
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from notifier.core import database_urls
from notifier.core.errors import InvalidTopic
from notifier.core.rates import Rate
from notifier.core.topics import check_item

# Files and connections other than parked clients: database, publishers, health checks, logs.
SPARE_FILES = 500

# Of failed authentications, for each address: one a second, and sixty at once.
FAILED_RATE = Rate(60, 60)

MIN_KEY = 8
# RFC 7518, section 3.2: a key for HS256 has at least 256 bits.
MIN_SECRET = 32

# Of tokens. What is known of revoked ones is kept as long.
MAX_LIFETIME = timedelta(days=30)

# How far apart the clocks of those who sign tokens, and ours, may be.
LEEWAY = timedelta(minutes=1)

_SPAN = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_RATE = re.compile(r"([1-9][0-9]{0,5})/([smh])", re.ASCII)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+", re.ASCII)
_WEEK = timedelta(days=7)

# Heroku's router keeps an idle connection for 90 s; if we closed it first, its next request would get an error.
KEEP_ALIVE = timedelta(seconds=95)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class SettingsError(Exception):
    """A setting is missing, malformed or unsafe; the message names it and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """What a token (JWT) must be signed with and say. `subscribe` and `publish` are patterns for all tokens, in which
    {sub} is the token's subject."""

    secrets: tuple[bytes, ...] = ()
    keys: str | None = None  # a JWKS: a file, or an https URL
    audience: str | None = None
    issuer: str | None = None
    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    lifetime: timedelta = timedelta(days=1)

    def __repr__(self) -> str:
        return "TokenSettings()"  # secrets

    @property
    def longest(self) -> timedelta:
        """How long after it was first taken, at most, a token is good: a revocation must hold as long."""
        return self.lifetime + LEEWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with. `database_url` None means the embedded database in `directory`."""

    database_url: str | None = None
    listen_database_url: str | None = None
    directory: Path = Path(".notifier")
    host: str = "127.0.0.1"
    port: int = 8080
    processes: int = 1
    listen_fds: int = 0  # sockets that the platform has handed over, instead of host and port
    admin_keys: tuple[str, ...] = ()
    public_subscribe: tuple[str, ...] = ()  # topics and patterns for which no credential is needed
    public_publish: tuple[str, ...] = ()
    open: bool = False
    tokens: TokenSettings | None = None
    policy: str | None = None  # schema.function
    seal_keys: tuple[str, ...] = ()  # for the secrets of sources
    origins: frozenset[str] = frozenset()  # of pages that may use the service; or "*"
    trusted_proxies: int = 0
    failed_rate: Rate | None = FAILED_RATE
    publish_rate: Rate | None = None  # of messages, for each grant
    poll_rate: Rate | None = None
    max_parked: int = 10_000
    max_parked_per_address: int = 0
    max_body: int = 1024 * 1024
    max_memory: int = 128 * 1024 * 1024
    keep_alive: timedelta = KEEP_ALIVE  # of idle connections
    retention: timedelta = _WEEK

    def __repr__(self) -> str:
        return f"Settings(host={self.host!r}, port={self.port})"  # the others hold secrets

    @property
    def anyone(self) -> bool:
        """Whether everybody may do everything: access was opened, or, on this machine, never set up."""
        closed = self.admin_keys or self.tokens or self.public_subscribe or self.public_publish or self.policy
        return self.open or not closed

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """SettingsError with a sentence for the operator when a value is malformed or out of bounds."""
        read = _Reader(env)
        return cls(
            database_url=read.dsn("DATABASE_URL"),
            listen_database_url=read.dsn("LISTEN_DATABASE_URL"),
            host=read.text("HOST") or "127.0.0.1",
            port=read.integer("PORT", 8080, 0, 65535),
            processes=read.integer("WEB_CONCURRENCY", 1, 1, 64),
            listen_fds=_handed_over(read),
            admin_keys=read.keys("NOTIFIER_ADMIN_KEY"),
            public_subscribe=read.items("NOTIFIER_PUBLIC_SUBSCRIBE"),
            public_publish=read.items("NOTIFIER_PUBLIC_PUBLISH"),
            open=read.choice("NOTIFIER_OPEN", "0", "1") == "1",
            tokens=_tokens(read),
            policy=read.function("NOTIFIER_POLICY"),
            seal_keys=read.keys("NOTIFIER_SEAL_KEY", MIN_SECRET),
            origins=read.origins("NOTIFIER_ORIGINS"),
            trusted_proxies=read.integer("NOTIFIER_TRUSTED_PROXIES", 0, 0, 10),
            failed_rate=read.rate("NOTIFIER_FAILED_RATE", FAILED_RATE),
            publish_rate=read.rate("NOTIFIER_PUBLISH_RATE"),
            poll_rate=read.rate("NOTIFIER_POLL_RATE"),
            max_parked=read.integer("NOTIFIER_MAX_PARKED", default_max_parked(), 1, 1_000_000),
            max_parked_per_address=read.integer("NOTIFIER_MAX_PARKED_PER_ADDRESS", 0, 0, 1_000_000),
            max_body=read.integer("NOTIFIER_MAX_BODY", 1024 * 1024, 1, 64 * 1024 * 1024),
            max_memory=read.integer("NOTIFIER_MAX_MEMORY", 128 * 1024 * 1024, 32 * 1024 * 1024, 64 * 1024**3),
            keep_alive=read.span("NOTIFIER_KEEP_ALIVE", KEEP_ALIVE, timedelta(seconds=1), timedelta(days=1)),
            retention=read.span("NOTIFIER_RETENTION", _WEEK, timedelta(seconds=1), timedelta(days=3650)),
        )

    def check_exposure(self) -> None:
        """SettingsError where `serve` would let the network in without a key, or onto the embedded database."""
        if is_loopback(self.host) or self.open:
            return
        if self.anyone:
            raise SettingsError(
                f"HOST is {self.host}, which others can reach, and there is no NOTIFIER_ADMIN_KEY. "
                "Set one (for instance to the output of: openssl rand -hex 16), "
                "or set NOTIFIER_OPEN=1 to let anyone publish and read."
            )
        if self.database_url is None:
            raise SettingsError(
                f"HOST is {self.host}, which others can reach, and there is no DATABASE_URL. The embedded database is "
                "for development: set DATABASE_URL, or NOTIFIER_OPEN=1 if this is what you want."
            )


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, can only be this machine."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def default_max_parked() -> int:
    """The open-file limit, which `serve` raises as far as it may, less what else needs files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 1_000_000 if hard == resource.RLIM_INFINITY else hard
    return max(1, min(limit - SPARE_FILES, 1_000_000))


def _handed_over(read: "_Reader") -> int:
    # By sd_listen_fds(3): another process, such as a parent that passed its environment on, may be meant.
    meant = read.integer("LISTEN_PID", 0, 0, 2**31) == os.getpid()
    return read.integer("LISTEN_FDS", 0, 0, 64) if meant else 0


def _tokens(read: "_Reader") -> TokenSettings | None:
    tokens = TokenSettings(
        secrets=tuple(secret.encode() for secret in read.keys("NOTIFIER_JWT_SECRET", MIN_SECRET)),
        keys=read.place("NOTIFIER_JWT_KEYS"),
        audience=read.text("NOTIFIER_JWT_AUDIENCE") or None,
        issuer=read.text("NOTIFIER_JWT_ISSUER") or None,
        subscribe=read.items("NOTIFIER_JWT_SUBSCRIBE"),
        publish=read.items("NOTIFIER_JWT_PUBLISH"),
        lifetime=read.span("NOTIFIER_JWT_LIFETIME", timedelta(days=1), timedelta(seconds=1), MAX_LIFETIME),
    )
    if tokens.keys and "://" in tokens.keys and tokens.audience is None and tokens.issuer is None:
        # RFC 8725, section 3.9. Some providers sign for all their customers with one set of keys.
        raise SettingsError(
            "NOTIFIER_JWT_KEYS is a URL, and there is neither NOTIFIER_JWT_AUDIENCE nor NOTIFIER_JWT_ISSUER: every "
            "token of that provider would be taken, also those for other applications. Set what aud or iss must be."
        )
    if tokens.secrets or tokens.keys:
        return tokens
    if tokens != TokenSettings():
        # Without this, access could be open where somebody meant to set it up.
        raise SettingsError(
            "There are settings for tokens (NOTIFIER_JWT_...), but neither NOTIFIER_JWT_SECRET nor NOTIFIER_JWT_KEYS "
            "to verify them with."
        )
    return None


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str) -> str:
        return self._env.get(name, "").strip()

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self.text(name)
        if not text:
            return default
        if not re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) or not low <= int(text) <= high:
            raise SettingsError(f"{name} is {text[:40]!r}: it must be a number from {low} to {high}.")
        return int(text)

    def choice(self, name: str, *values: str) -> str:
        """One of `values`, of which the first is the default."""
        text = self.text(name) or values[0]
        if text not in values:
            raise SettingsError(f"{name} is {text[:40]!r}: it must be {' or '.join(values)}.")
        return text

    def span(self, name: str, default: timedelta, low: timedelta, high: timedelta) -> timedelta:
        text = self.text(name)
        if not text:
            return default
        found = _SPAN.fullmatch(text)
        span = timedelta(seconds=int(found[1]) * _UNITS_S[found[2]]) if found else timedelta(0)
        if not low <= span <= high:
            raise SettingsError(f"{name} is {text[:40]!r}: it must be a span such as 12h or 7d, up to {high.days}d.")
        return span

    def rate(self, name: str, default: Rate | None = None) -> Rate | None:
        text = self.text(name)
        if not text:
            return default
        found = _RATE.fullmatch(text)
        if not found and text != "0":
            raise SettingsError(
                f"{name} is {text[:40]!r}: it must be a rate such as 100/s, 30/m or 5/h, or 0 for none."
            )
        return Rate(int(found[1]), _UNITS_S[found[2]]) if found else None

    def keys(self, name: str, shortest: int = MIN_KEY) -> tuple[str, ...]:
        keys = tuple(self.text(name).split())
        for key in keys:  # never shown
            if len(key) < shortest or not re.fullmatch(r"[!-~]+", key):
                raise SettingsError(
                    f"{name}: each key must have at least {shortest} printable ASCII characters; several are separated "
                    "by spaces."
                )
        return keys

    def items(self, name: str) -> tuple[str, ...]:
        """Topics and patterns, separated by commas. Those that are templates are checked when they are filled in."""
        items = tuple(item.strip() for item in self.text(name).split(",") if item.strip())
        try:
            for item in items:
                check_item(item.replace("{sub}", "sub"))
        except InvalidTopic as error:
            raise SettingsError(f"{name}: {error}") from None
        return items

    def function(self, name: str) -> str | None:
        text = self.text(name)
        if text and not re.fullmatch(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*", text, re.ASCII):
            raise SettingsError(f"{name} is {text[:80]!r}: it must name a function with its schema: schema.function.")
        return text or None

    def origins(self, name: str) -> frozenset[str]:
        origins = frozenset(self.text(name).replace(",", " ").split())
        for origin in origins - {"*"}:
            # Apps have schemes of their own: capacitor://localhost.
            if not _ORIGIN.fullmatch(origin):
                raise SettingsError(
                    f"{name}: {origin[:80]!r} is not an origin, such as https://app.example.com or "
                    "http://localhost:3000, in lower case and without a path. For all pages, use *."
                )
            if re.fullmatch("http://.*:80|https://.*:443", origin):
                raise SettingsError(f"{name}: {origin[:80]!r} has the port that browsers leave out. Leave it out too.")
        return origins

    def place(self, name: str) -> str | None:
        """A file or an https URL; http only for what is on this machine."""
        text = self.text(name)
        if "://" in text:
            try:
                parts = urlsplit(text)
                safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
                known = safe and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
            except ValueError:
                known = False
            if not known:
                raise SettingsError(
                    f"{name} must be a file or an https URL without a password; http is taken from this machine only."
                )
        return text or None

    def dsn(self, name: str) -> str | None:
        text = self.text(name)
        if not text:
            return None
        try:
            database_urls.parse(text)
        except database_urls.InvalidDatabaseURL as error:
            raise SettingsError(f"{name}: {error}") from None
        return text
