"""aiohttp internals that the hand-over uses. When one of these fails, compare web/connections.py and web/server.py with
the new aiohttp."""

import inspect
from importlib.metadata import version

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler
from conftest import Running
from support.protocol import line
from support.seam import connections

from notifier.web.connections import MAX_LINE, ConnectionHandler
from notifier.web.server import RequestReader

HANDLER = {"_messages", "_current_request", "_keepalive_handle", "_manager", "_close", "_force_close", "_task_handler"}
PROTOCOL = {"_paused", "_reading_paused", "_buffer_paused", "_upgraded", "_parser", "transport"}


def source(thing: object) -> str:
    return " ".join(inspect.getsource(thing).split())


def test_aiohttp_is_of_the_release_that_was_read() -> None:
    assert version("aiohttp").startswith("3.14."), "read notifier/web/handler.py, then allow the new release here"


def test_a_handler_has_the_state_that_says_whether_it_is_busy() -> None:
    assert set(RequestHandler.__slots__) >= HANDLER
    assert set(BaseProtocol.__slots__) >= PROTOCOL


def test_a_handler_without_a_transport_ends_and_touches_nothing() -> None:
    start = source(RequestHandler.start)
    assert "self._keepalive = bool(resp.keep_alive)" in start
    assert "if self._keepalive and not self._close and not self._force_close:" in start
    assert "self._task_handler = None if self.transport is not None: self.transport.close()" in start
    finish = source(RequestHandler.finish_response)
    assert "await prepare_meth(request) await resp.write_eof()" in finish
    assert "and self._parser is not None" in finish


def test_a_server_forgets_a_handler_when_its_task_is_over() -> None:
    lost = source(web.Server.connection_lost)
    assert "handler._task_handler.add_done_callback( lambda f: self._connections.pop(handler, None) )" in lost


def test_a_server_makes_handlers_with_what_it_was_given() -> None:
    made = source(web.Server.__init__)
    for kept in ("self._loop = ", "self._kwargs = kwargs", "self.request_handler = handler", "self.request_factory = "):
        assert kept in made
    assert "return RequestHandler(self, loop=self._loop, **self._kwargs)" in source(web.Server.__call__)
    assert "return self._app._make_handler(loop=loop, **self._kwargs)" in source(web.AppRunner._make_server)


def test_limits_of_the_parser_are_those_of_a_handler() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(RequestHandler).parameters.items()}
    assert (defaults["max_line_size"], defaults["max_field_size"], defaults["max_headers"]) == (MAX_LINE, MAX_LINE, 128)


async def test_a_request_without_a_body_has_the_empty_payload() -> None:
    reader = RequestReader()
    for _ in range(100):  # more than a handler would queue
        message = reader.read(b"GET /v1/topics/t?after=1 HTTP/1.1\r\nHost: a\r\nX-A:\t b \r\n\r\n")
        assert isinstance(message, RawRequestMessage)
        assert (message.path, message.raw_headers) == ("/v1/topics/t?after=1", ((b"Host", b"a"), (b"X-A", b"b")))
    assert reader._parser
    assert HttpRequestParser.__name__ == type(reader._parser).__name__
    [(message, payload)], _, _ = reader._parser.feed_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert payload is EMPTY_PAYLOAD


async def test_the_reader_takes_one_whole_request_and_recovers_from_anything_else() -> None:
    reader = RequestReader()
    good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for bad in (
        good[:-1],
        good + good,
        good + b"x",
        b"\r\n" + good,
        good.replace(b"GET", b"PUT"),
        good.replace(b"1.1", b"1.0"),
        good.replace(b"a", b"a\r\nContent-Length: 4"),
        good.replace(b"a", b"a\r\nTransfer-Encoding: chunked"),
        good.replace(b"a", b"a\r\nConnection: close"),
        good.replace(b"a", b"a\r\nConnection: upgrade\r\nUpgrade: websocket"),
        good.replace(b"a", b"a\r\nno header"),
        good.replace(b"a", b"a" * MAX_LINE),
    ):
        assert reader.read(bad) is None, bad
        assert reader.read(good) is not None, bad


async def test_nothing_of_aiohttp_is_left_of_a_connection_that_was_handed_over(app: Running) -> None:
    server = app.client.server.runner.server
    async with line(app) as raw:
        await raw.send("GET /v1/topics/t?wait=28 HTTP/1.1")
        await app.parked()
        [connection] = connections(app)
        assert not any(isinstance(handler, ConnectionHandler) and handler.transport for handler in server.connections)
        await raw.send("GET /healthz HTTP/1.1")
        await app.publish("t")
        assert (await raw.answer()).status == 200
        assert (await raw.answer()).body == b"ok\n"
        # Behind the poll came something else, so aiohttp has it again.
        assert connections(app) == []
        assert connection.transport in [handler.transport for handler in server.connections]
