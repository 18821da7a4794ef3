"""aiohttp's handler of a connection, subclassed twice: what it answers and holds, and what it receives.

`INTERNALS` of aiohttp's handler are used here, by `ConnectionHandler` alone; `AnsweringHandler` does without.
tests/http/test_server.py fails when one of them changes.
"""

import asyncio
import logging
from typing import Any, cast

from aiohttp import web
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import PayloadEncodingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler

from notifier.core.errors import BadRequest, HeadTooLarge, NotifierError, SlowRequest, Unavailable
from notifier.core.memory import NOT_STORED, SMALL_BODY
from notifier.web.memory import Clients
from notifier.web.origins import Origins
from notifier.web.responses import APART, add_default_headers, problem, refusal

log = logging.getLogger(__name__)

# The request line and all headers together. A list of 100 topics of 255 characters takes 26 kB, more where it is
# percent-encoded; browsers send at most 4 kB of each cookie.
MAX_HEAD = 64 * 1024

# aiohttp's own limit for one line: a head within it can be handed over.
MAX_LINE = 8190

# What a client sends behind a request is kept for its turn; beyond this nothing more is read until then.
MAX_BEHIND = 64 * 1024

# aiohttp reads no more while it has twice as much of a body that nobody reads, or a sixteenth of that many pieces of
# it: then a connection has what it received at once, and no more.
READ_BUFFER = 16 * 1024

# A piece of a body, beside its bytes: the object, its place, and where it ends.
PIECE = 96
# In a chunked body, a byte alone takes some six. Beyond that, extensions and trailers are no longer than a head may be.
FRAMED = 16

# What aiohttp's parser makes of each byte of a head: text and bytes of each header, the URL, the path.
HEAD_COPIES = 3
# Less than this is not counted: it is the base cost of a connection.
UNCOUNTED = 8 * 1024

INTERNALS = (
    "_messages",
    "_current_request",
    "_upgraded",
    "_paused",
    "_reading_paused",
    "_buffer_paused",
    "_keepalive_handle",
    "_manager",
    "_close",
    "_force_close",
    "_parser",
)

END = b"\r\n\r\n"
_UNKNOWN = -1


class AnsweringHandler(RequestHandler):
    """aiohttp's handler, which answers in our words and keeps no answer that was sent."""

    __slots__ = ("_clients", "_origins", "_refusal", "_sending", "fresh")

    def __init__(self, clients: Clients, origins: Origins, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._clients = clients
        self._origins = origins
        self._refusal: NotifierError | None = None
        self._sending: bytes | None = None  # the body that is being written
        self.fresh = True  # it has answered nothing yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # From now on writing is paused whenever the kernel does not take everything: then we hold the rest.
        transport.set_write_buffer_limits(high=0)  # type: ignore[attr-defined]
        super().connection_made(transport)
        self._clients.arrived(cast("asyncio.Transport", transport))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._clients.unread(self, self.transport, self._sending)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._clients.read(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._clients.read(self)
        super().connection_lost(exc)

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
        if self._refusal is not None:
            error = self._refusal
            response = problem(error.status, error.code, str(error), error.retry_after_s)
        else:
            # Anyone can send any number of malformed requests; anything else is a bug.
            log.log(logging.DEBUG if status < 500 else logging.ERROR, "refused a request: %s", type(exc).__name__)
            detail = "This is not HTTP as it should be, or it has too many headers."
            response = problem(status, "bad_request" if status == 400 else "error", detail)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        # A malformed body, when aiohttp reads the rest of it after the answer, is no error of ours.
        if not isinstance(kwargs.get("exc_info"), web.RequestPayloadError | PayloadEncodingError):
            super().log_exception(*args, **kwargs)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        self.fresh = False
        if isinstance(resp, web.HTTPException):
            resp = refusal(resp)  # raised outside any handler: an Expect that cannot be met
        add_default_headers(resp, self._origins.headers(request))
        if "Expect" in request.headers and not request.content.is_eof():
            resp.force_close()  # nobody can tell whether the body still comes
        if isinstance(resp, web.Response) and isinstance(resp.body, bytes) and len(resp.body) > APART:
            return await self._finish_large(request, resp, resp.body, start_time)
        return await super().finish_response(request, resp, start_time)

    async def _finish_large(
        self, request: web.BaseRequest, resp: web.Response, body: bytes, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        self._sending = body
        try:
            if writer := await resp.prepare(request):
                writer.send_headers()  # aiohttp would join them with the body
            return await super().finish_response(request, resp, start_time)
        except ConnectionError:
            return resp, True
        finally:
            self._sending = None
            # aiohttp keeps the response until the next request.
            resp.body = None
            resp.clear()


class ConnectionHandler(AnsweringHandler):
    """A handler that has one request at a time, counts what it holds, and can let go of its connection.

    aiohttp's parser gets one head, and the body that belongs to it. What comes behind waits here, as it came, until
    the request has been answered.
    """

    __slots__ = ("_behind", "_body", "_charged", "_end", "_head", "_kept", "_left", "_open", "_payload", "_received")

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._received = b""  # the head, if it came at once
        self._open = 0  # requests that are not answered yet
        self._head = 0  # bytes of an incomplete head
        self._end = b""  # the last three of them
        self._left = 0  # bytes of the body to come; _UNKNOWN until it ends
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._kept = 0  # bytes of the last head: aiohttp keeps it until the next one
        self._body = 0  # bytes of bodies that are not served yet
        self._behind = b""
        self._charged = 0

    # --- receiving

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if not data:  # aiohttp goes on with what its parser has
            self._parse(b"")
        while data and self._refusal is None:
            if self._left:
                part, data = (data[: self._left], data[self._left :]) if self._left > 0 else (data, b"")
                self._receive_body(part)
            elif self._open:
                self._behind += data
                break
            else:
                end = self._find_end(data)
                part, data = (data, b"") if end == len(data) else (data[:end], data[end:])
                self._receive_head(part)
        self._count()
        if self._behind and self.transport is not None and not self.transport.is_closing():
            if self._clients.budget.full:
                self.transport.abort()
            elif len(self._behind) > MAX_BEHIND:
                self.transport.pause_reading()

    def _find_end(self, data: bytes) -> int:
        """Where the head ends that `data` begins or continues; where `data` ends, if it goes on."""
        if self._end:
            end = (self._end + data[:3]).find(END)
            if end >= 0:
                return end + len(END) - len(self._end)
        end = data.find(END)
        return end + len(END) if end >= 0 else len(data)

    def _receive_head(self, part: bytes) -> None:
        if not self._head and not part.strip(b"\r\n"):
            self._parse(part)  # empty lines before a request are not part of it
            return
        size = self._head + len(part)
        if size > MAX_HEAD:
            self._refuse(HeadTooLarge(f"The request line and the headers have at most {MAX_HEAD} bytes together."))
        elif self._clients.budget.full and size * HEAD_COPIES > UNCOUNTED:
            self._refuse(Unavailable("The server is short of memory at the moment. Try again."))
        else:
            self._head = size
            self._received = part if len(part) <= MAX_LINE else b""
            self._parse(part)
            if not self._open:
                self._end = (self._end + part)[-3:]
                self._clients.expect_head(self)

    def _receive_body(self, part: bytes) -> None:
        # All that came before has been parsed: otherwise reading would be paused.
        beside = self._body - FRAMED * self._payload.total_bytes if self._open and self._left == _UNKNOWN else 0
        if self._left > 0:
            self._left -= len(part)
        if self._open:
            self._body += len(part)
        else:
            self._body = len(part)  # it is answered already, and aiohttp drops the rest as it comes
        budget = self._clients.budget
        if budget.exhausted if self._body <= SMALL_BODY else budget.full:
            self._refuse_body(Unavailable(NOT_STORED))
        elif beside > MAX_HEAD:
            self._refuse_body(BadRequest(f"Chunk extensions and trailers have at most {MAX_HEAD} bytes together."))
        else:
            self._parse(part)

    def _refuse_body(self, error: NotifierError) -> None:
        """From here on nothing is kept. aiohttp waits for a while before it closes the connection, so that a client
        that is still sending gets the answer."""
        self._refusal = error
        if self._open:
            self._payload.set_exception(error)

    def _parse(self, part: bytes) -> None:
        before = len(self._messages)
        super().data_received(part)
        new = len(self._messages) - before
        if new > 0:
            if self._open and not self._payload.is_eof():
                # Not the next request, but an error in this one's body.
                self._payload.set_exception(web.RequestPayloadError("the body is malformed"))
            if self._end:
                self._clients.got_head(self)
            self._open += new
            self._kept, self._head, self._end = self._head, 0, b""
            message, self._payload = self._messages[-1]
            if error := getattr(message, "exc", None):
                # Its traceback refers to the frame that refers to it: all of this would wait for the garbage collector.
                error.__traceback__ = None
            self._left = 0 if self._payload.is_eof() else _body_length(cast("RawRequestMessage", message))
        if self._left == _UNKNOWN and self._payload.is_eof():
            self._left = 0

    def _refuse(self, error: NotifierError) -> None:
        """Answer `error` in place of the request that is being received."""
        self._refusal = error
        self._clients.got_head(self)
        self._parse(b"\0")  # which no head can contain
        if not self._open and self.transport is not None:
            self.transport.abort()

    def give_up(self) -> None:
        self._refuse(SlowRequest("The request did not arrive in time."))
        self._count()

    def _count(self) -> None:
        """Report to the budget what this connection holds."""
        held = HEAD_COPIES * (self._head + self._kept) + self._body + len(self._behind)
        if self._payload is not EMPTY_PAYLOAD:
            held += PIECE * len(self._payload._buffer)  # noqa: SLF001
        if held <= UNCOUNTED:
            held = 0
        if held != self._charged:
            self._clients.budget.add(held - self._charged)
            self._charged = held

    def _count_nothing(self) -> None:
        self._head = self._kept = self._body = 0
        self._behind = self._received = b""
        self._payload = EMPTY_PAYLOAD
        self._clients.got_head(self)
        self._count()

    # --- answering

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._refusal is not None or (self._charged and self._clients.budget.short):
            resp.force_close()  # aiohttp would keep a large head until the next request
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._open -= 1
            if self._refusal is not None:
                self._payload.set_exception(None)  # type: ignore[arg-type]
            if not self._open:
                self._body = 0
                behind, self._behind = self._behind, b""
                if behind and self.transport is not None and not self.transport.is_closing():
                    if not self._reading_paused and not self._buffer_paused:
                        self.transport.resume_reading()
                    self.data_received(behind)
                self._count()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._count_nothing()

    # --- letting go

    def only(self, request: web.Request) -> bytes | None:
        """The last bytes received, if the connection has nothing to do but `request` and can be handed over.

        If it is one whole request, it is this one: nothing else has come since, and nothing is half read.
        """
        busy = (
            request is not self._current_request
            or self._messages
            or self._behind
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
        """Give the transport away; the handler ends without touching it."""
        transport = self.transport
        assert transport is not None
        assert self._manager is not None
        self.transport = None
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None
        self._manager.connection_lost(self)
        self._parser = None  # which refers back to this
        self._count_nothing()
        return transport


def _body_length(message: RawRequestMessage) -> int:
    """The bytes of the body behind a head."""
    length = message.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and not message.chunked else _UNKNOWN
