"""The web application: its routes, and aiohttp's runner for it."""

import warnings
from functools import partial

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.web_urldispatcher import MatchInfoError

from notifier.service import Service
from notifier.web import activity, health, hooks, listing, pages, publish, subscribe
from notifier.web.access import ACCESS, Access
from notifier.web.appkeys import SERVICE
from notifier.web.bodies import expecting
from notifier.web.connections import MAX_HEAD, READ_BUFFER
from notifier.web.errors import answering_errors
from notifier.web.handover import HANDOVER, Handover
from notifier.web.memory import Clients
from notifier.web.origins import ORIGINS, Origins, answering_options
from notifier.web.server import Runner

# One for all methods: it is matched once.
LISTS = f"{subscribe.TOPICS}{{topics:(?s:.*)}}"
# Senders join the URL of this server and the path, each with a slash or not.
HOOKS = "/{_:/?}hooks/{source}{__:/?}"

# The one thing that a client may expect.
_CONTINUE = "100-continue"

# In any other path that there is.
MAX_SEGMENTS = 8

# A stop: handlers get twice this (aiohttp waits, cancels, and waits again).
HANDLERS_S = 1.0


class Router(web.UrlDispatcher):
    """aiohttp's router looks up each prefix of a path, and copies it: 0.2 s for a path of 64 kB that is mostly slashes.
    Only lists of topics may have many segments. And it quotes an expectation that it does not know, which fails where
    that is not UTF-8."""

    async def resolve(self, request: web.Request) -> web.UrlMappingMatchInfo:
        if request.version == HttpVersion11 and request.headers.get("Expect", _CONTINUE).lower() not in ("", _CONTINUE):
            raise web.HTTPExpectationFailed
        if request.rel_url.raw_path.count("/") <= MAX_SEGMENTS:
            return await super().resolve(request)
        methods: set[str] = set()
        for resource in self.resources():
            if resource.canonical.startswith(subscribe.TOPICS):
                found, allowed = await resource.resolve(request)
                if found is not None:
                    return found
                methods |= allowed
        return MatchInfoError(web.HTTPMethodNotAllowed(request.method, methods) if methods else web.HTTPNotFound())


def create_app(service: Service) -> web.Application:
    """The application in front of `service`, which is running, and which its caller stops."""
    origins = Origins(service.settings.origins)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there is no other way to a router of one's own
        app = web.Application(router=Router(), middlewares=[answering_errors(service), answering_options(origins)])
    app[SERVICE] = service
    app[ORIGINS] = origins
    app[ACCESS] = Access(service.settings, service.callers, origins, service.policy)
    app.add_routes(
        [
            web.get("/v1/topics", listing.topics, allow_head=False),
            web.get("/v1/counts", activity.counts, allow_head=False),
            web.get("/v1/waiting", activity.waiting, allow_head=False),
            web.get(LISTS, subscribe.subscribe, allow_head=False),
            web.post(LISTS, publish.publish, expect_handler=expecting),
            web.put(LISTS, publish.publish, expect_handler=expecting),
            web.post("/v1/messages", publish.publish_batch, expect_handler=expecting),
            web.get("/v1/messages/{id}", publish.message),
            web.get("/v1/scheduled", listing.scheduled, allow_head=False),
            web.delete("/v1/scheduled/{id}", publish.unschedule),
            web.post("/", publish.publish_ntfy, expect_handler=expecting),
            web.put("/", publish.publish_ntfy, expect_handler=expecting),
            web.post(HOOKS, hooks.hook, expect_handler=expecting),
            web.get(HOOKS, hooks.probe),
            web.options(HOOKS, hooks.probe),
            web.get("/healthz", health.healthz),
            web.get("/readyz", health.readyz),
        ]
    )
    pages.setup(app)
    return app


def create_runner(app: web.Application, *, fast: bool = True) -> web.AppRunner:
    """`fast=False`: parked polls stay in their handlers; for clients nothing else is different."""
    clients = Clients(app[SERVICE].memory)
    if fast:
        handover = app[HANDOVER] = Handover(app[SERVICE], clients, app[ORIGINS], partial(subscribe.first_poll, app))
        app.on_cleanup.append(lambda _: handover.streams.close())
    return Runner(
        app,
        clients=clients,
        origins=app[ORIGINS],
        holder=app.get(HANDOVER),
        handler_cancellation=True,  # a client that hangs up ends its poll; off by default
        keepalive_timeout=app[SERVICE].settings.keep_alive.total_seconds(),
        shutdown_timeout=HANDLERS_S,
        auto_decompress=False,  # signatures cover what was sent
        max_line_size=MAX_HEAD,
        max_field_size=MAX_HEAD,
        read_bufsize=READ_BUFFER,
        access_log=None,
    )
