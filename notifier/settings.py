"""Every setting: its name in the environment, its default and its bounds. Nothing else reads the environment."""

import ipaddress
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

# Files and connections other than parked clients: database, publishers, health checks, logs.
SPARE_FILES = 500

MIN_KEY = 8

_SPAN = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_WEEK = timedelta(days=7)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class SettingsError(Exception):
    """A setting is missing, malformed or unsafe; the message names it and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with. `database_url` None means the embedded database in `directory`."""

    database_url: str | None = None
    listen_database_url: str | None = None
    directory: Path = Path(".notifier")
    host: str = "127.0.0.1"
    port: int = 8080
    processes: int = 1
    admin_key: str | None = None
    public: bool = False  # subscribing needs no key
    open: bool = False
    max_parked: int = 10_000
    max_parked_per_address: int = 0
    max_body: int = 1024 * 1024
    max_memory: int = 128 * 1024 * 1024
    retention: timedelta = _WEEK

    def __repr__(self) -> str:
        return f"Settings(host={self.host!r}, port={self.port})"  # the others hold secrets

    @property
    def anyone(self) -> bool:
        """Whether neither publishers nor subscribers need a key."""
        return self.open or self.admin_key is None

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
            admin_key=read.key("NOTIFIER_ADMIN_KEY"),
            public=read.choice("NOTIFIER_SUBSCRIBE", "key", "public") == "public",
            open=read.choice("NOTIFIER_OPEN", "0", "1") == "1",
            max_parked=read.integer("NOTIFIER_MAX_PARKED", default_max_parked(), 1, 1_000_000),
            max_parked_per_address=read.integer("NOTIFIER_MAX_PARKED_PER_ADDRESS", 0, 0, 1_000_000),
            max_body=read.integer("NOTIFIER_MAX_BODY", 1024 * 1024, 1, 16 * 1024 * 1024),
            max_memory=read.integer("NOTIFIER_MAX_MEMORY", 128 * 1024 * 1024, 32 * 1024 * 1024, 64 * 1024**3),
            retention=read.span("NOTIFIER_RETENTION", _WEEK, timedelta(seconds=1), timedelta(days=3650)),
        )

    def check_exposure(self) -> None:
        """SettingsError where `serve` would let the network in without a key, or onto the embedded database."""
        if is_loopback(self.host) or self.open:
            return
        if self.admin_key is None:
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

    def key(self, name: str) -> str | None:
        text = self.text(name)
        if not text:
            return None
        if len(text) < MIN_KEY or not re.fullmatch(r"[!-~]+", text):
            raise SettingsError(f"{name} must have at least {MIN_KEY} printable ASCII characters and no space.")
        return text

    def dsn(self, name: str) -> str | None:
        text = self.text(name)
        if not text:
            return None
        try:
            parts = urlsplit(text)
            known = parts.scheme in {"postgres", "postgresql"} and parts.port != 0
        except ValueError:
            known = False
        if not known:  # never shown: it holds a password
            raise SettingsError(f"{name} must be a URL such as postgres://user:password@host:5432/database.")
        return text
