"""aiohttp's classes that we subclass, and every internal of aiohttp that we lean on.

The handler of a connection answers what aiohttp refuses by itself in our words, bounds how long an answer may take to
send, and can let go of its connection. It overrides `handle_error` and `finish_response`. Internals used:
`_current_request`, `_messages`, `_paused`, `_reading_paused`, `_buffer_paused`, `_upgraded`, `_keepalive_handle`,
`_manager`, `_close`, `_force_close` and `_parser` of the handler, and `_message` of its request.
tests/http/test_server.py fails when one of them changes.
"""

import asyncio
import logging
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from notifier.web.responses import add_default_headers, problem, refusal

log = logging.getLogger(__name__)

# A client that has not read its answer after so long is aborted: some MiB of memory wait with each.
SEND_S = 60.0

# 100 topics of 255 characters, percent-encoded, are one line.
MAX_LINE = 128 * 1024

# aiohttp's own limit for one line; a longer head is left to it.
MAX_HEAD = 8190

# How often a stop looks whether the last answers have been read.
LOOK_S = 0.02

_READ_BUFFER = 2**16
_MAX_HEADERS = 128
_QUEUE = 32
_END = b"\r\n\r\n"


class ConnectionHandler(RequestHandler):
    """aiohttp's handler of a connection, which also remembers what it received last."""

    __slots__ = ("_received",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received = data
        super().data_received(data)

    def only(self, request: web.Request) -> bytes | None:
        """What came last, if the connection has nothing to do but `request`, and can be left to somebody else.

        If it is one whole request, it is this one: nothing else has come since, and nothing is half read.
        """
        busy = (
            request is not self._current_request
            or self._messages
            or self._upgraded
            or self._paused
            or self._reading_paused
            or self._buffer_paused
            or self._close
            or self._force_close
            or self.transport is None
            or self.transport.is_closing()
            or request.version != HttpVersion11
            or not request.keep_alive
            or request.content is not EMPTY_PAYLOAD
            or "Expect" in request.headers
        )
        return None if busy else self._received

    def leave(self) -> asyncio.Transport:
        """Let go of the transport, which is somebody else's from now on; the handler ends without touching it."""
        transport = self.transport
        assert transport is not None
        assert self._manager is not None
        self.transport = None
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None
        self._manager.connection_lost(self)
        self._parser = None  # which refers back to this
        return transport

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """The answer to what aiohttp's parser refuses. Its own would show, and log with a traceback, the headers that
        it could not parse; a key may be among them."""
        if request.writer.output_size > 0:
            raise ConnectionError("part of another answer has been sent")
        log.info("refused a malformed request: %s", type(exc).__name__)
        detail = "This is not HTTP as it should be, or its headers are too long."
        response = problem(status, "bad_request" if status == 400 else "error", detail)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = refusal(resp)  # raised outside of any handler: an Expect that cannot be met
        add_default_headers(resp)
        try:
            async with asyncio.timeout(SEND_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True


class HandedOver(web.StreamResponse):
    """What a handler returns whose handler has left: nothing is sent."""

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
        if len(data) > MAX_HEAD or not data.startswith(b"GET ") or data.find(_END) != len(data) - len(_END):
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
        # Only now: a parser in the midst of something, or one that takes no more, is not used again.
        parser.message_consumed()
        self._parser = parser
        return message

    def _make(self) -> HttpRequestParser:
        return HttpRequestParser(
            BaseProtocol(self._loop),
            self._loop,
            _READ_BUFFER,
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
            max_msg_queue_size=_QUEUE,
        )


def same_request(request: web.Request, message: RawRequestMessage) -> bool:
    mine = cast("Any", request)._message  # noqa: SLF001
    return bool(mine.method == message.method and mine.path == message.path and mine.raw_headers == message.raw_headers)


class Holder(Protocol):
    """What holds connections that a handler has let go of."""

    server: "Server"

    def transports(self) -> list[asyncio.Transport]: ...


class Runner(web.AppRunner):
    """aiohttp's runner, with our server."""

    def __init__(self, app: web.Application, *, holder: Holder | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(app, **kwargs)
        self._holder = holder

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return Server(self._holder, server.request_handler, request_factory=server.request_factory, **self._kwargs)


class Server(web.Server):
    """aiohttp's server, with our handlers. Its end is also the end of the connections that `holder` has."""

    def __init__(self, holder: Holder | None, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._holder = holder
        if holder:
            holder.server = self

    def __call__(self) -> ConnectionHandler:
        return ConnectionHandler(self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        super().pre_shutdown()
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
