"""A server that does to a client what a script says: the faults that a real one cannot be asked for."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from notifier.client import Subscription

Step = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # as it came, with the query
    headers: dict[str, str]
    body: bytes
    query: dict[str, str]


class Scripted:
    """Answers each request with the next step of its script; when there is none left, it parks."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self._steps: deque[Step] = deque()
        self._arrived = asyncio.Condition()
        self._stopping = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(request.method, request.raw_path, headers, body, dict(request.query)))
        async with self._arrived:
            self._arrived.notify_all()
        if self._steps:
            return await self._steps.popleft()(request)
        await self._stopping.wait()
        return web.Response(status=503)

    async def arrived(self, count: int) -> None:
        """Wait until `count` requests have come."""
        async with asyncio.timeout(20), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    def stop(self) -> None:
        self._stopping.set()

    def answers(self, text: str, status: int = 200, **headers: str) -> None:
        async def step(request: web.Request) -> web.StreamResponse:
            headers.setdefault("Content_Type", "application/json")
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(body=text.encode(), status=status, headers=named)

        self._steps.append(step)

    def sends(self, ids: list[int], cursor: int, **headers: str) -> None:
        messages = [message(id_) for id_ in ids]
        self.answers(json.dumps({"messages": messages, "cursor": str(cursor)}), **headers)

    def refuses(self, status: int, code: str = "some_code", **headers: str) -> None:
        self.answers(json.dumps({"code": code, "detail": "A sentence."}), status, Content_Type=PROBLEM, **headers)

    def admits(self, token: str, text: str) -> None:
        """A 201 with `token`, a 401 with another."""

        async def step(request: web.Request) -> web.StreamResponse:
            if request.headers["Authorization"] == f"Bearer {token}":
                return web.Response(text=text, status=201)
            return web.Response(status=401)

        self._steps.append(step)

    def cuts(self) -> None:
        async def step(request: web.Request) -> web.StreamResponse:
            assert request.transport
            request.transport.abort()
            return web.Response()

        self._steps.append(step)

    def sends_half(self, ids: list[int], cursor: int, *, length: bool) -> None:
        """The first half of an answer; with `length` the client can know, without it the end looks like the end."""
        text = json.dumps({"messages": [message(id_) for id_ in ids], "cursor": str(cursor)}).encode()

        async def step(request: web.Request) -> web.StreamResponse:
            assert request.transport
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n" if length else "HTTP/1.0 200 OK\r\n\r\n"
            request.transport.write(head.encode() + text[: len(text) // 2])
            request.transport.close()
            return web.Response()

        self._steps.append(step)

    def says_nothing(self) -> None:
        async def step(request: web.Request) -> web.StreamResponse:
            await self._stopping.wait()
            return web.Response()

        self._steps.append(step)


def message(id_: int) -> dict[str, object]:
    return {"id": str(id_), "topic": "t", "time": "2026-11-20T17:00:00.123456Z", "data": {"n": id_}}


@asynccontextmanager
async def scripted_server() -> AsyncIterator[Scripted]:
    server = Scripted()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.5, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    server.stop()
    await runner.cleanup()


async def take(subscription: Subscription, count: int) -> list[int]:
    """The ids of the next `count` messages; the deadline only bounds a hang."""
    async with asyncio.timeout(30), aclosing(subscription):
        return [int((await anext(subscription)).id) for _ in range(count)]


def asked(scripted: Scripted) -> list[dict[str, str]]:
    """The queries that came: where they begin, and whether they park."""
    told = ("after", "since", "last", "wait")
    return [{name: value for name, value in r.query.items() if name in told} for r in scripted.requests]
