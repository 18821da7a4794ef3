"""HTTP by hand: requests in pieces, behind one another, or not to their end; and nothing is retried."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# An answer that has not come by then never comes.
HANGS_S = 40.0


class Hung(Exception):
    """No answer came for HANGS_S after it was due."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> str | None:
        """The code of an error of the service's own; None for what comes from something in between."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        code: Any = json.loads(self.body).get("code")
        return code if isinstance(code, str) else None

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def encoded(topics: tuple[str, ...], rng: random.Random) -> str:
    """A list as a path has it, with one of the encodings that mean the same."""
    safe = rng.choice(["/,*", "/,*", "/,*", "/", ","])
    return "/v1/topics/" + quote(",".join(topics), safe=safe)


class Connection:
    """One connection. OSError and EOFError where it breaks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.used = False

    @classmethod
    async def open(cls, port: int) -> "Connection":
        async with asyncio.timeout(HANGS_S):
            return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def send_in_pieces(self, data: bytes, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 4)):
            cut = rng.randint(0, len(data))
            self._writer.write(data[:cut])
            data = data[cut:]
            await asyncio.sleep(rng.choice([0, 0.002, 0.05, 0.3]))
        self._writer.write(data)

    async def answer(self, wait_s: float = 0) -> Response:
        """The next response, of a stream only its head; Hung where it does not come."""
        try:
            async with asyncio.timeout(wait_s + HANGS_S):
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except TimeoutError:
            raise Hung from None
        self.used = True
        return Response(int(head[0].split()[1]), headers, body)

    async def events(self, lasts_s: float) -> AsyncIterator[dict[str, str]]:
        """The events of a stream, for so long; Hung where none comes, although one has to every 15 s."""
        end = asyncio.get_running_loop().time() + lasts_s
        data = b""
        while asyncio.get_running_loop().time() < end:
            try:
                async with asyncio.timeout(HANGS_S):
                    size = int(await self._reader.readuntil(b"\r\n"), 16)
                    data += (await self._reader.readexactly(size + 2))[:-2]
            except TimeoutError:
                raise Hung from None
            if not size:
                return
            *events, data = data.split(b"\n\n")
            for event in events:
                yield dict(line.split(": ", 1) for line in event.decode().split("\n"))

    async def some_bytes(self, count: int, wait_s: float) -> None:
        """Read at most `count` bytes of an answer, for at most `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._reader.read(count)
        except TimeoutError:
            pass

    def abort(self) -> None:
        self._writer.transport.abort()


# What breaks a connection, and says nothing about the service.
BROKEN = (OSError, EOFError, asyncio.IncompleteReadError)
