"""Origins: which pages of other websites may use the service, and what their browsers must be told (CORS).

https://fetch.spec.whatwg.org/#http-cors-protocol. There is no credentials mode: cookies play no part here, so a page
can do nothing that its user's key or token does not allow.
"""

from collections.abc import Set as AbstractSet
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDictProxy

from notifier.core.errors import Forbidden


class Headed(Protocol):
    """A request, or what is known of it."""

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...


# Headers of a response. Equal ones are one object.
Cors = tuple[tuple[str, str], ...]

# What pages may read. The star, which stands for all, is not known to browsers from before 2023.
EXPOSED = "Retry-After, Preference-Applied, Location, WWW-Authenticate, *"

# What pages may send. The star, for what a page's other tools add to each request, never stands for Authorization.
REQUEST_HEADERS = ", ".join(
    (
        "Accept",
        "Authorization",
        "Content-Type",
        "Last-Event-ID",
        "Prefer",
        "Idempotency-Key",
        *(f"{prefix}{field}" for prefix in ("", "X-") for field in ("Title", "Click", "Priority", "Tags")),
        "*",
    )
)

# As long as Chromium remembers a preflight at most.
MAX_AGE_S = 7200

# A preflight for a path that does not exist is granted these, so that the page can read the 404.
_ANYWHERE = frozenset({"GET", "POST"})

# What browsers say of a page of our own, and of a user who types an address.
_OWN_SITES: tuple[list[str], ...] = ([], ["same-origin"], ["none"])


class Origins:
    """The origins of pages that may use the service; "*" is all. One for each application."""

    def __init__(self, allowed: AbstractSet[str]) -> None:
        self._all = "*" in allowed
        self._others: Cors = (("Cross-Origin-Resource-Policy", "same-origin"),)
        self._allowed: dict[str, Cors] = {}
        if self._all:
            self._others = _granted("*")
        elif allowed:
            vary = (("Vary", "Origin"),)
            self._others += vary
            self._allowed = {origin: _granted(origin) + vary for origin in allowed}

    def headers(self, request: Headed) -> Cors:
        """What the response to `request` has for the page's browser."""
        if not self._allowed:
            return self._others
        return self._allowed.get(_origin(request), self._others)

    def foreign(self, request: Headed) -> bool:
        """Whether `request` is made by a page of another origin, which is not allowed.

        Sec-Fetch-Site, which no page can set, is right where a proxy has changed Host; older browsers do not send it.
        Without Origin, such a page loads something that it cannot read, but it could tell how long that takes.
        """
        headers = request.headers
        sites = [site.lower() for site in headers.getall("Sec-Fetch-Site", [])]
        if self._all or sites == ["same-origin"]:
            return False
        if "Origin" in headers:
            origin = _origin(request)
            if origin in self._allowed:
                return False
            if origin.partition("://")[2] != headers.get("Host", ""):
                return True
        return sites not in _OWN_SITES

    def check_preflight(self, request: Headed) -> None:
        """Forbidden unless the preflight `request` is that of a page that is allowed."""
        if not self._all and _origin(request) not in self._allowed:
            raise Forbidden(
                "Pages of this origin may not use this server. If they should, add the origin to NOTIFIER_ORIGINS."
            )


ORIGINS = web.AppKey("origins", Origins)


def answering_options(origins: Origins) -> Middleware:
    """The middleware that answers OPTIONS for every route, before anything is asked of the caller: preflights, which
    have no credentials, and questions for the methods of a path, where the route has no answer of its own."""

    @web.middleware
    async def answer_options(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "OPTIONS":
            return await handler(request)
        error = request.match_info.http_exception
        methods = _methods(request.match_info)
        if "Origin" in request.headers and "Access-Control-Request-Method" in request.headers:
            origins.check_preflight(request)
            return web.Response(
                status=204,
                headers={
                    "Access-Control-Allow-Methods": ", ".join(sorted(methods or _ANYWHERE)),
                    "Access-Control-Allow-Headers": REQUEST_HEADERS,
                    "Access-Control-Max-Age": str(MAX_AGE_S),
                },
            )
        if error is None or not methods:
            return await handler(request)
        return web.Response(status=204, headers={"Allow": allow(methods)})

    return answer_options


def allow(methods: AbstractSet[str]) -> str:
    """The header Allow of a path that takes `methods`."""
    return ", ".join(sorted(methods | {"OPTIONS"}))


def _methods(match: web.UrlMappingMatchInfo) -> AbstractSet[str]:
    """The methods of the path; none where there is nothing at it."""
    error = match.http_exception
    if isinstance(error, web.HTTPMethodNotAllowed):
        return error.allowed_methods
    resource = match.route.resource
    return frozenset() if error or resource is None else frozenset(route.method for route in resource)


def _origin(request: Headed) -> str:
    """The origin of the page; "" where it is not given, or not just once."""
    # What aiohttp makes of a malformed request has an empty dict there, which has no `getall`.
    given = request.headers.getall("Origin", []) if request.headers else []
    return given[0] if len(given) == 1 else ""


def _granted(origin: str) -> Cors:
    return (
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", EXPOSED),
        ("Cross-Origin-Resource-Policy", "cross-origin"),
    )
