"""What the tests of the HTTP face share: refusals, and requests that no client library would send."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import ClientResponse
from yarl import URL

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}

# Bounds a hang; nothing is measured with it.
DEADLINE_S = 20.0


def exactly(path: str) -> URL:
    """A path that the client must not escape or normalise any further."""
    return URL(path, encoded=True)


def empty_window(app: Any) -> None:
    """From here on everything published so far is read from the table."""
    app.service.filling._task.cancel()
    app.service.window.reset(app.service.window.head)


async def refusal(response: ClientResponse, status: int, code: str) -> str:
    """The sentence for people in an RFC 9457 answer, once all the rest of it is as it must be."""
    async with response:
        text = await response.text()
        assert (response.status, response.content_type) == (status, "application/problem+json"), text
        problem = await response.json()
    assert problem.keys() == {"type", "title", "status", "code", "detail"}
    assert (problem["type"], problem["status"], problem["code"]) == ("about:blank", status, code)
    detail: str = problem["detail"]
    # A sentence or two, and nothing from inside.
    assert re.fullmatch(r"[A-Za-z'{0-9].*[.]", detail, re.DOTALL), detail
    assert not re.search(r"Traceback|Error\b|Exception|asyncpg|aiohttp|\.py\b|<.*object|postgres", detail), detail
    assert len(detail) < 500
    return detail


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *lines: str | bytes, body: bytes = b"") -> None:
        """A request: its first line, its headers, a Host where there is none, and the body."""
        raw = [line.encode() if isinstance(line, str) else line for line in lines]
        if not any(line.lower().startswith(b"host:") for line in raw):
            raw.insert(1, b"Host: localhost")
        self.writer.write(b"\r\n".join([*raw, b"", body]))
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next one; of a stream of events, up to its first message."""
        async with asyncio.timeout(DEADLINE_S):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.split(": ", 1) for line in lines if line)
            headers = {name.lower(): value for name, value in pairs}
            if headers.get("content-type") == "text/event-stream":
                body = await self.reader.readuntil(b"}\n\n")
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    def hang_up(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def line(app: Any) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()
