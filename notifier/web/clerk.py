"""aiohttp's side of the front desk: a handler that can let go of its connection.

All that leans on internals of aiohttp is here: `_current_request`, `_messages`, `_paused`, `_reading_paused`,
`_buffer_paused`, `_upgraded`, `_keepalive_handle`, `_manager`, `_close`, `_force_close`, `_parser` of its handler, and
`_message` of its request. tests/http/test_clerk.py says at once when one of them changes.
"""

import asyncio
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

from notifier.web.handler import Handler

# aiohttp's own limit for one line; a longer head is left to it.
MAX_HEAD = 8190

_READ_BUFFER = 2**16
_MAX_HEADERS = 128
_QUEUE = 32
_END = b"\r\n\r\n"


class Clerk(Handler):
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


class HandedOver(web.StreamResponse):
    """What a handler returns whose clerk has left: nothing is sent."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass

    @property
    def keep_alive(self) -> bool:
        return False  # so that the clerk's task ends


class Reader:
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
