"""Access: each request gets the grant of its caller, or is refused.

Callers are the holder of the admin key, the public, and, in open mode, every program except pages of other websites.
"""

import hmac
import ipaddress
from base64 import b64decode
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import web

from notifier.core.errors import Forbidden, Unauthorized
from notifier.core.grants import Grant
from notifier.settings import Settings, is_loopback


class Access:
    """The grants that this process currently gives. One for each application."""

    def __init__(self, settings: Settings) -> None:
        self._keys: dict[bytes, Grant] = {}
        self._nobody = Grant("nobody")  # who shows no key
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """Use the keys of `settings` from here on. Every grant given before has ended."""
        for grant in (*self._keys.values(), self._nobody):
            grant.end()
        if settings.anyone or settings.admin_key is None:
            self._keys = {}
            self._nobody = Grant("anyone", admin=True)
        else:
            self._keys = {settings.admin_key.encode(): Grant("admin", admin=True)}
            self._nobody = Grant("public", subscribe=["**"] if settings.public else [])
        self._local = settings.anyone and not settings.open

    def publisher(self, request: web.Request) -> Grant:
        """The grant of a caller that publishes. Unauthorized without a key that allows it; Forbidden for a page of
        another website in open mode."""
        self.check_host(request)
        if self._local:
            _check_origin(request)
        grant = self._caller(request)
        if grant is self._nobody and not grant.publishes:
            raise _no_key()
        return grant

    def subscriber(self, request: web.Request) -> Grant:
        """The grant of a caller that reads. Unauthorized without a key that allows it, unless reading is public;
        Forbidden for another website in open mode."""
        self.check_host(request)
        grant = self._caller(request)
        if grant is self._nobody and not grant.subscribes:
            raise _no_key()
        return grant

    def check_host(self, request: web.Request) -> None:
        """Forbidden, without a key, unless Host is a name of this machine: a website whose name resolves to 127.0.0.1
        (DNS rebinding) is same-origin with us for the browser, but its Host reveals it."""
        if self._local and not is_loopback(_hostname(f"//{_host(request)}")):
            raise Forbidden(
                "This server has no key, so it answers only to names of this machine. "
                "Use http://127.0.0.1, or set NOTIFIER_ADMIN_KEY."
            )

    def _caller(self, request: web.Request) -> Grant:
        given = _credential(request)
        caller = self._nobody
        for key, grant in self._keys.items():
            if hmac.compare_digest(given, key):
                caller = grant
        return caller


ACCESS = web.AppKey("access", Access)


def authorise_publish(request: web.Request, topics: Iterable[str] = ()) -> Grant:
    """The caller's grant. Unauthorized; Forbidden, with the first of `topics` that the caller may not publish to."""
    grant = request.app[ACCESS].publisher(request)
    _check(topics, grant.may_publish, "publish to")
    return grant


def authorise_subscribe(request: web.Request, items: Iterable[str] = ()) -> Grant:
    """The caller's grant. Unauthorized; Forbidden, with the first of `items`, topics and patterns, that the caller may
    not subscribe to."""
    grant = request.app[ACCESS].subscriber(request)
    _check(items, grant.may_subscribe, "subscribe to")
    return grant


def _check(items: Iterable[str], allowed: Callable[[str], bool], action: str) -> None:
    for item in items:
        if not allowed(item):
            raise Forbidden(f"You may not {action} {item}.")


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    foreign = origin is not None and origin.partition("://")[2] != _host(request)
    if foreign or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Forbidden("This server has no key, so it accepts nothing from pages of other websites.")


def _credential(request: web.Request) -> bytes:
    """What Authorization has as a bearer or as a password; empty if nothing."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = credentials.strip().encode(errors="surrogateescape")
    if scheme.lower() == "bearer":
        return given
    if scheme.lower() == "basic":
        try:
            return b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return b""


def _no_key() -> Unauthorized:
    return Unauthorized("Send the key: Authorization: Bearer KEY, or Basic with the key as the password.")


def address(request: web.Request) -> str:
    """The client's address, for limits: behind a proxy the last X-Forwarded-For entry (the proxy appends the peer that
    it saw; the client may have made up the entries before it), else the peer. IPv6 by /64, one customer's block."""
    peer = request.remote or ""
    forwarded = request.headers.getall("X-Forwarded-For", [])
    try:
        parsed = ipaddress.ip_address(peer)
        if forwarded and parsed.is_private:
            parsed = ipaddress.ip_address(forwarded[-1].rpartition(",")[2].strip())
    except ValueError:
        return peer
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _host(request: web.Request) -> str:
    # Not request.host: without the header (HTTP/1.0) it looks up our own name in the DNS and blocks the event loop.
    return request.headers.get("Host", "")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
