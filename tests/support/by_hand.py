"""Connections to a server by hand, so that nothing is retried, pooled or tidied up."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from conftest import DEADLINE_S, Running, Server


def request(method: str, path: str, body: str | None = None) -> str:
    """An HTTP request; one without body has no Content-Length."""
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n{body or ''}"


class Client:
    """A connection whose input is read by hand. The fixture `opened` closes those that it lists after each test."""

    opened: ClassVar[list["Client"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.opened.append(self)

    @classmethod
    async def connect(cls, server: Server) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    def send(self, method: str, path: str, body: str | None = None) -> None:
        self._writer.write(request(method, path, body).encode())

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by their names in lower case, body."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            return int(head[0].split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def closed(self) -> None:
        """Return when the server has closed the connection, having said nothing more."""
        async with asyncio.timeout(DEADLINE_S):
            assert await self._reader.read() == b""

    def close(self) -> None:
        self._writer.transport.abort()


async def ask(server: Server, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    client = await Client.connect(server)
    client.send(method, path, body)
    status, _, answer = await client.answer()
    client.close()
    return status, answer


class Caller:
    """A connection that is only written to, and may be dropped in rude ways."""

    def __init__(self, app: Running) -> None:
        self.sock = socket.create_connection((app.client.server.host, app.client.server.port))

    def send(self, method: str, path: str) -> None:
        self.sock.sendall(request(method, path).encode())

    def hang_up(self, *, reset: bool = False) -> None:
        """By FIN, or by RST as a client does that crashes."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@contextmanager
def calling(app: Running, count: int) -> Iterator[list[Caller]]:
    callers = [Caller(app) for _ in range(count)]
    try:
        yield callers
    finally:
        for caller in callers:
            caller.sock.close()
