"""The web application: its routes, and aiohttp's runner for it."""

from aiohttp import web

from notifier.service import Service
from notifier.web import health, hooks, pages, publish, subscribe
from notifier.web.access import ACCESS, Access
from notifier.web.appkeys import SERVICE
from notifier.web.connections import MAX_HEAD
from notifier.web.errors import answering_errors
from notifier.web.handover import HANDOVER, Handover
from notifier.web.memory import Clients
from notifier.web.server import Runner

# Heroku's router keeps an idle connection for 90 s; if we closed it first, its next request would get an error.
KEEP_ALIVE_S = 95.0

# A stop: handlers get twice this (aiohttp waits, cancels, and waits again).
HANDLERS_S = 1.0


def create_app(service: Service) -> web.Application:
    """The application in front of `service`, which is running, and which its caller stops."""
    app = web.Application(middlewares=[answering_errors(service)])
    app[SERVICE] = service
    app[ACCESS] = Access(service.settings)
    app.add_routes(
        [
            web.get("/v1/topics/{list:(?s:.*)}", subscribe.subscribe, allow_head=False),
            web.post("/v1/topics/{topic:(?s:.*)}", publish.publish),
            web.post("/v1/messages", publish.publish_batch),
            web.get("/v1/messages/{id}", publish.message),
            web.post("/hooks/{source}", hooks.hook),
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
        app[HANDOVER] = Handover(app[SERVICE], clients)
    return Runner(
        app,
        clients=clients,
        holder=app.get(HANDOVER),
        handler_cancellation=True,  # a client that hangs up ends its poll; off by default
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=HANDLERS_S,
        auto_decompress=False,  # signatures cover what was sent
        max_line_size=MAX_HEAD,
        max_field_size=MAX_HEAD,
        access_log=None,
    )
