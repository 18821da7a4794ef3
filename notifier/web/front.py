"""aiohttp's server and its runner, with our handler, and with a desk where there is one."""

import asyncio
from typing import Any

from aiohttp import web

from notifier.web.clerk import Clerk
from notifier.web.desk import Desk, ParkedConnection
from notifier.web.keys import DESK

# How often a stop looks whether the last answers have been read.
LOOK_S = 0.02


class Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return Front(self.app.get(DESK), server.request_handler, request_factory=server.request_factory, **self._kwargs)


class Front(web.Server):
    """At its end it closes also the connections that the desk holds."""

    def __init__(self, desk: Desk | None, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._desk = desk
        if desk:
            desk.server = self

    def __call__(self) -> Clerk:
        return Clerk(self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        super().pre_shutdown()
        for connection in self._held():
            connection.transport.close()

    async def shutdown(self, timeout: float | None = None) -> None:
        await super().shutdown(timeout)
        # Closed above, but who does not read its last answer stays until it is thrown out.
        give_up = self._loop.time() + (timeout or 0)
        while self._held() and self._loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        for connection in self._held():
            connection.transport.abort()

    def _held(self) -> list[ParkedConnection]:
        return self._desk.connections() if self._desk else []
