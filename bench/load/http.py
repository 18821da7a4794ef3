"""The cheapest HTTP client that is still one: prebuilt requests, answers found by their length."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, cast


def request(method: str, target: str, body: bytes = b"") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Answer(NamedTuple):
    """`head` from the status line to the end of the last header; `end` is how many bytes it all has."""

    status: int
    head: bytes
    body: bytes
    end: int


def first_answer(data: bytes) -> Answer | None:
    """The answer at the beginning of `data`; None if it is not there whole. ValueError for what none of our servers
    sends: a body that lasts until the end of the connection."""
    start = data.find(b"\r\n\r\n") + 4
    if start < 4:
        return None
    head = data[: start - 2]
    lower = head.lower()
    status = int(head[9:12])
    length = lower.find(b"\r\ncontent-length:")
    if length < 0 and b"\r\ntransfer-encoding: chunked\r\n" in lower:
        body = b""
        while (line := data.find(b"\r\n", start)) >= 0:
            size = int(data[start:line], 16)
            body += data[line + 2 : line + 2 + size]
            start = line + 2 + size + 2
            if size == 0 or start > len(data):
                break
        return Answer(status, head, body, start) if line >= 0 and size == 0 and start <= len(data) else None
    if length >= 0:
        end = start + int(head[length + 17 : head.index(b"\r\n", length + 2)])
    elif status in {204, 304}:
        end = start
    else:
        raise ValueError("an answer without its length")
    return Answer(status, head, data[start:end], end) if end <= len(data) else None


class Connection(asyncio.Protocol):
    """One keep-alive connection. `on_answer(status, body)` is called for each answer, in the turn in which it came;
    `on_lost` when the server has closed."""

    def __init__(self, on_answer: Callable[[int, bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._rest = b""
        self._closing = False

    @classmethod
    async def open(
        cls, port: int, on_answer: Callable[[int, bytes], None], on_lost: Callable[[], None]
    ) -> "Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(on_answer, on_lost), "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's says nowhere that it is one

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._closing:
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while answer := first_answer(data):
            data = data[answer.end :]
            self._on_answer(answer.status, answer.body)
        self._rest = data


class Client:
    """A connection on which one request at a time is awaited."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._connection: Connection

    @classmethod
    async def open(cls, port: int) -> "Client":
        client = cls()
        client._connection = await Connection.open(port, client._answered, client._lost)
        return client

    def send(self, data: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(data)
        return self._answer

    def close(self) -> None:
        self._connection.close()

    def _answered(self, status: int, body: bytes) -> None:
        assert self._answer
        self._answer.set_result((status, body))

    def _lost(self) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError("The server has closed the connection."))
