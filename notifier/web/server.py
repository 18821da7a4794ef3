"""aiohttp's server and runner with our handlers of connections, and aiohttp's parser for requests that came whole.

Internals of aiohttp used here: the constructor of its C parser, `_kwargs` and `_loop` of the server, `_make_server` and
`_kwargs` of the runner, and `_message` of a request. tests/http/test_server.py fails when one of them changes.
"""

import asyncio
from collections.abc import Collection
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

from notifier.web.connections import END, MAX_LINE, AnsweringHandler, ConnectionHandler
from notifier.web.memory import Clients
from notifier.web.origins import Origins

# How often a stop looks whether the last answers have been read.
LOOK_S = 0.02

_READ_BUFFER = 2**16
_MAX_HEADERS = 128
_QUEUE = 32


class HandedOver(web.StreamResponse):
    """The response of a handler that let go of its connection: nothing is sent."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass

    @property
    def keep_alive(self) -> bool:
        return False  # so that the handler's task ends


class RequestReader:
    """Reads requests that came whole, with aiohttp's parser."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser: HttpRequestParser | None = None

    def read(self, data: bytes) -> RawRequestMessage | None:
        """The request that `data` is, if it is just one, a GET without a body, and the connection outlives it."""
        if len(data) > MAX_LINE or not data.startswith(b"GET ") or data.find(END) != len(data) - len(END):
            return None
        parser, self._parser = self._parser or self._make(), None
        try:
            messages, upgraded, _ = parser.feed_data(data)
        except HttpProcessingError:
            return None
        if upgraded or len(messages) != 1 or messages[0][1] is not EMPTY_PAYLOAD:
            return None
        message = messages[0][0]
        if message.version != HttpVersion11 or message.should_close or message.upgrade or message.chunked:
            return None
        # Only now: a parser that is in the middle of a request, or accepts no more, is not used again.
        parser.message_consumed()
        self._parser = parser
        return message

    def _make(self) -> HttpRequestParser:
        return HttpRequestParser(
            BaseProtocol(self._loop),
            self._loop,
            _READ_BUFFER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
            max_msg_queue_size=_QUEUE,
        )


def same_request(request: web.Request, message: RawRequestMessage) -> bool:
    mine = cast("Any", request)._message  # noqa: SLF001
    return bool(mine.method == message.method and mine.path == message.path and mine.raw_headers == message.raw_headers)


class Holder(Protocol):
    """A holder of connections that handlers let go of, and of the `fresh` ones, on which nothing has come yet."""

    server: "Server"

    def finish(self) -> None:
        """End what would go on; what waits has been answered."""

    @property
    def fresh(self) -> Collection[asyncio.Protocol]: ...

    def arriving(self) -> asyncio.Protocol:
        """For a client that is about to connect."""

    def transports(self) -> list[asyncio.Transport]: ...


class Runner(web.AppRunner):
    """aiohttp's runner, with our server."""

    def __init__(
        self,
        app: web.Application,
        *,
        clients: Clients,
        origins: Origins,
        holder: Holder | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(app, **kwargs)
        self._clients = clients
        self._origins = origins
        self._holder = holder

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return Server(
            self._clients,
            self._origins,
            self._holder,
            server.request_handler,
            request_factory=server.request_factory,
            **self._kwargs,
        )


class Server(web.Server):
    """aiohttp's server, with our handlers. Its end is also the end of the connections that `holder` has."""

    def __init__(
        self,
        clients: Clients,
        origins: Origins,
        holder: Holder | None,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self._clients = clients
        self._origins = origins
        self._holder = holder
        self.handler: type[AnsweringHandler] = ConnectionHandler
        if holder:
            holder.server = self

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]
        """For a client that is about to connect."""
        if self._holder and issubclass(self.handler, ConnectionHandler):
            return self._holder.arriving()
        return self.make()

    def make(self) -> AnsweringHandler:
        limits = dict(self._kwargs)
        if not issubclass(self.handler, ConnectionHandler):
            limits["max_field_size"] = MAX_LINE  # nothing else bounds a head there
        return self.handler(self._clients, self._origins, self, loop=self._loop, **limits)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self.connections) + len(self._held())

    @property
    def fresh(self) -> bool:
        """Whether there is a connection on which nothing has been answered yet."""
        return bool(self._holder and self._holder.fresh) or any(
            cast("AnsweringHandler", connection).fresh for connection in self.connections
        )

    def pre_shutdown(self) -> None:
        super().pre_shutdown()
        if self._holder:
            self._holder.finish()
        for transport in self._held():
            transport.close()

    async def shutdown(self, timeout: float | None = None) -> None:
        await super().shutdown(timeout)
        # Closed above, but a client that never reads its last answer is aborted at the deadline.
        give_up = self._loop.time() + (timeout or 0)
        while self._held() and self._loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        for transport in self._held():
            transport.abort()

    def _held(self) -> list[asyncio.Transport]:
        return self._holder.transports() if self._holder else []
