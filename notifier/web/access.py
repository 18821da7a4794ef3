"""Access: each request gets the grant of its caller, or is refused.

Callers are holders of a credential, the public, and, in open mode, every program except pages of other websites.
"""

import asyncio
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web
from multidict import CIMultiDictProxy

from notifier.access.callers import Callers
from notifier.access.policy import DEADLINE_S, Action, Policy
from notifier.core.errors import BadRequest, Forbidden, InvalidToken, Unauthorized
from notifier.core.grants import Grant
from notifier.settings import Settings, is_loopback
from notifier.web.addresses import client_address
from notifier.web.appkeys import SERVICE
from notifier.web.origins import Origins


class Asking(Protocol):
    """What of a request tells who asks, and from where."""

    @property
    def app(self) -> web.Application: ...
    @property
    def remote(self) -> str | None: ...
    @property
    def headers(self) -> CIMultiDictProxy[str]: ...


HOW = "Send Authorization: Bearer KEY, or Basic with the key as the password."


class Access:
    """What the callers of requests may do. One for each application."""

    def __init__(self, settings: Settings, callers: Callers, origins: Origins, policy: Policy | None) -> None:
        self._callers = callers
        self._origins = origins
        self.proxies = settings.trusted_proxies
        self._policy = policy
        self._local = settings.anyone and not settings.open

    async def publisher(self, request: web.Request) -> Grant:
        """The grant of a caller that publishes. Unauthorized without a credential where one is needed; InvalidToken
        with one that is not good; Forbidden for a page of another website in open mode."""
        self._check_page(request)
        grant = await self._caller(request)
        if grant is self._callers.nobody and not grant.publishes:
            raise _no_key()
        return grant

    async def subscriber(self, request: web.Request) -> Grant:
        """The same for a caller that reads."""
        self._check_page(request)
        grant = await self._caller(request)
        if grant is self._callers.nobody and not grant.subscribes:
            raise _no_key()
        return grant

    def known_subscriber(self, request: Asking) -> Grant | None:
        """The grant of a caller that reads, if nobody has to be asked for it; None also where the policy is asked.
        NotifierError as for others."""
        self._check_page(request)
        credential = _credential(request)
        grant = self._callers.nobody if credential is None else self._callers.known(credential)
        return None if grant is None or self.asks(grant) else grant

    async def refused(self, grant: Grant, action: Action, topics: Sequence[str], deadline: float) -> str | None:
        """The first of `topics`, which the grant allows, that the policy refuses. Unavailable where that cannot be told
        by `deadline` (loop time)."""
        assert self._policy is not None
        return await self._policy.refused(grant, action, topics, deadline)

    def asks(self, grant: Grant) -> bool:
        """Whether there is a policy, and it is asked about holders of `grant`."""
        return self._policy is not None and not grant.admin and grant is not self._callers.nobody

    def check_host(self, request: Asking) -> None:
        """Forbidden, without a key, unless Host is a name of this machine: a website whose name resolves to 127.0.0.1
        (DNS rebinding) is same-origin with us for the browser, but its Host reveals it."""
        if self._local and not is_loopback(_hostname(f"//{_host(request)}")):
            raise Forbidden(
                "This server has no key, so it answers only to names of this machine. "
                "Use http://127.0.0.1, or set NOTIFIER_ADMIN_KEY."
            )

    def _check_page(self, request: Asking) -> None:
        """Forbidden, without a key, for what a website could make the browser of somebody on this machine send."""
        self.check_host(request)
        if self._local and self._origins.foreign(request):
            raise Forbidden(
                "This server has no key, so it does not serve pages of other websites. "
                "If it should serve this one, add its origin to NOTIFIER_ORIGINS."
            )
        if len(request.headers.getall("Origin", [])) > 1:
            raise BadRequest("Origin is given twice.")

    async def _caller(self, request: web.Request) -> Grant:
        credential = _credential(request)
        return self._callers.nobody if credential is None else await self._callers.find(credential)


ACCESS = web.AppKey("access", Access)

Brake: TypeAlias = Callable[[Grant], None]


async def authorise_publish(request: web.Request, topics: Sequence[str] = (), brake: Brake | None = None) -> Grant:
    """The caller's grant. Unauthorized; Forbidden, with the first of `topics` that the caller may not publish to;
    Unavailable where the policy does not say. `brake` is called with the grant before the policy is asked, so that a
    caller that is too fast does not reach the database; what it raises goes through."""
    return await _authorise(request, "publish", topics, brake)


async def authorise_subscribe(request: web.Request, items: Sequence[str] = (), brake: Brake | None = None) -> Grant:
    """The same for `items`, topics and patterns, that the caller subscribes to. Patterns are for the grant alone: the
    policy is asked about topics."""
    return await _authorise(request, "subscribe", items, brake)


async def may_read(request: web.Request, topic: str) -> bool:
    """Whether the caller, whose grant was found before, may subscribe to `topic`."""
    try:
        await authorise_subscribe(request, [topic])
    except Forbidden:
        return False
    return True


async def may_publish(request: web.Request, topic: str) -> bool:
    """The same for publishing to `topic`."""
    try:
        await authorise_publish(request, [topic])
    except Forbidden:
        return False
    return True


async def _authorise(request: web.Request, action: Action, items: Sequence[str], brake: Brake | None) -> Grant:
    access = request.app[ACCESS]
    deadline = 0.0
    while True:
        if action == "publish":
            grant = await access.publisher(request)
            refused = grant.may_not_publish(items)
        else:
            grant = await access.subscriber(request)
            refused = grant.may_not_subscribe(items)
        deadline = deadline or asyncio.get_running_loop().time() + DEADLINE_S
        if refused is None:
            if brake:
                brake(grant)
                brake = None
            if access.asks(grant):
                refused = await access.refused(grant, action, [item for item in items if "*" not in item], deadline)
                if not grant.alive:
                    continue  # it ended meanwhile, and the policy may say something else now
        if refused is not None:
            raise Forbidden(f"You may not {action} to {refused}.")
        return grant


def _credential(request: Asking) -> bytes | None:
    """What Authorization has as a bearer or as a password; None without that header. InvalidToken where it is given
    twice or is not one of the two."""
    given = request.headers.getall("Authorization", [])
    if not given:
        return None
    if len(given) > 1:
        raise InvalidToken("Authorization is given twice.")
    scheme, _, credentials = given[0].partition(" ")
    credential = credentials.strip().encode(errors="surrogateescape")
    if scheme.lower() == "basic":
        try:
            credential = b64decode(credential, validate=True).partition(b":")[2]
        except ValueError:
            credential = b""
    elif scheme.lower() != "bearer":
        credential = b""
    if not credential:
        raise InvalidToken(f"Authorization is malformed. {HOW}")
    return credential


def refuse_strangers(request: web.Request, grant: Grant) -> None:
    """Unauthorized for a caller without a credential, who may publish: about what others have published."""
    if request.app[SERVICE].callers.is_stranger(grant):
        raise _no_key()


def _no_key() -> Unauthorized:
    return Unauthorized(f"This needs a credential. {HOW}")


def address(request: Asking) -> str:
    """The client's address, for limits."""
    proxies = request.app[ACCESS].proxies
    return client_address(request.remote or "", request.headers.getall("X-Forwarded-For", []), proxies)


def _host(request: Asking) -> str:
    # Not request.host: without the header (HTTP/1.0) it looks up our own name in the DNS and blocks the event loop.
    return request.headers.get("Host", "")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
