"""A bell whose notifications stand in a table of the application's own: `python bell.py bell.html`.

Environment: DATABASE_URL, NOTIFIER_JWT_SECRET, PORT.
"""

import os
import sys
import time
from pathlib import Path

import asyncpg
import jwt
from aiohttp import web

USER = 7  # whom your log-in has found
PAGE = Path(sys.argv[1]).read_text()
DATABASE = web.AppKey("database", asyncpg.Pool)

routes = web.RouteTableDef()


@routes.get("/")
async def page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


@routes.get("/token")
async def token(_: web.Request) -> web.Response:
    claims = {"sub": str(USER), "exp": int(time.time()) + 3600, "notifier": {"subscribe": [f"user/{USER}/**"]}}
    return web.json_response({"user": USER, "token": jwt.encode(claims, os.environ["NOTIFIER_JWT_SECRET"])})


@routes.get("/unread")
async def unread(request: web.Request) -> web.Response:
    rows = await request.app[DATABASE].fetchval(
        "select json_agg(n order by id) from notification n where user_id = $1 and read_at is null", USER
    )
    return web.Response(text=rows or "[]", content_type="application/json")


@routes.post(r"/read/{id:\d{1,18}}")
async def read(request: web.Request) -> web.Response:
    await request.app[DATABASE].execute(
        "update notification set read_at = now() where id = $1 and user_id = $2", int(request.match_info["id"]), USER
    )
    return web.Response(status=204)


async def start() -> web.Application:
    app = web.Application()
    app.add_routes(routes)
    app[DATABASE] = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    return app


if __name__ == "__main__":
    web.run_app(start(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
