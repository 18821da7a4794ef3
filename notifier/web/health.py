"""Health: whether the process lives, and whether it should get traffic."""

from aiohttp import web

from notifier.core.errors import Unavailable
from notifier.web.appkeys import SERVICE


async def healthz(_: web.Request) -> web.Response:
    # Pages of origins that are not allowed cannot read it, but may load it: so they can tell that the server is there.
    return web.Response(text="ok\n", headers={"Cross-Origin-Resource-Policy": "cross-origin"})


async def readyz(request: web.Request) -> web.Response:
    if reason := request.app[SERVICE].not_ready():
        raise Unavailable(f"Not ready: {reason}.")
    return web.Response(text="ready\n")
