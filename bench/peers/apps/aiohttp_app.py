"""Plain aiohttp, with a future awaited in each handler."""

import os

import topics
import uvloop
from aiohttp import web

routes = web.RouteTableDef()


@routes.get("/poll/{topic}")
async def poll(request: web.Request) -> web.Response:
    return web.json_response(await topics.poll(request.match_info["topic"], int(request.query.get("after", 0))))


@routes.post("/publish/{topic}")
async def publish(request: web.Request) -> web.Response:
    return web.json_response(topics.publish(request.match_info["topic"], await request.json()), status=201)


@routes.get("/health")
async def health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


if __name__ == "__main__":
    app = web.Application()
    app.add_routes(routes)
    # Without handler_cancellation the handler of a client that has hung up would wait on.
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop=uvloop.new_event_loop(),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=75,
    )
