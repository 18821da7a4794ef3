"""Flask under Hypercorn, which runs it in the default executor of its loop. That has a few threads for each processor
unless told, and each waiting client takes one."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask_app import app as flask_app
from hypercorn.middleware import AsyncioWSGIMiddleware

THREADS = 2048

wsgi = AsyncioWSGIMiddleware(flask_app)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    await wsgi(scope, receive, send)
