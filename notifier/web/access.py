"""Who may do what: the admin key, or, on a developer's machine, whoever is no foreign website."""

import hmac
import ipaddress
from base64 import b64decode
from urllib.parse import urlsplit

from aiohttp import web

from notifier.core.errors import Forbidden, Unauthorized
from notifier.service import Service
from notifier.settings import Settings, is_loopback

SERVICE = web.AppKey("service", Service)


def may_publish(request: web.Request) -> None:
    """Unauthorized without the key; Forbidden for a foreign website in open mode."""
    settings = request.app[SERVICE].settings
    if not settings.anyone:
        _check_key(request, settings)
    elif not settings.open:
        check_host(request)
        _check_origin(request)


def may_subscribe(request: web.Request) -> None:
    """Unauthorized without the key, unless subscribing is public; Forbidden for a foreign website in open mode."""
    settings = request.app[SERVICE].settings
    if not settings.anyone:
        if not settings.public:
            _check_key(request, settings)
    elif not settings.open:
        check_host(request)


def check_host(request: web.Request) -> None:
    """Without a key only names of this machine are served: a website whose name resolves to 127.0.0.1 (DNS rebinding)
    is same-origin with us for the browser, but its Host betrays it."""
    settings = request.app[SERVICE].settings
    if settings.anyone and not settings.open and not is_loopback(_hostname(f"//{_host(request)}")):
        raise Forbidden(
            "This server has no key, so it answers to names of this machine only. "
            "Use http://127.0.0.1, or set NOTIFIER_ADMIN_KEY."
        )


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    foreign = origin is not None and origin.partition("://")[2] != _host(request)
    if foreign or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Forbidden("This server has no key, so it takes nothing from pages of other websites.")


def _check_key(request: web.Request, settings: Settings) -> None:
    assert settings.admin_key is not None
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = credentials.strip().encode(errors="surrogateescape")
    if scheme.lower() == "basic":
        try:
            given = b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            given = b""
    elif scheme.lower() != "bearer":
        given = b""
    if not hmac.compare_digest(given, settings.admin_key.encode()):
        raise Unauthorized("Send the key: Authorization: Bearer KEY, or Basic with the key as the password.")


def address(request: web.Request) -> str:
    """The client, for limits: the last X-Forwarded-For entry where a proxy is before us (it appends the peer that it
    saw; what is before that, the client may have made up), else the peer. IPv6 by /64, which one customer has."""
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
    # Not request.host: without the header (HTTP/1.0) that asks the DNS for our own name, and everybody waits.
    return request.headers.get("Host", "")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
