"""A receiver of forwarded webhooks: what came, and the ways in which one fails."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from conftest import DEADLINE_S


@dataclass
class Arrived:
    """A request as its bytes were."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        return {given.lower(): value for given, value in self.headers}.get(name.lower())

    @property
    def id(self) -> str | None:
        return self.header("Notifier-Id")


Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """Answers each request with the next step of its script; when there is none left, with 204."""

    def __init__(self) -> None:
        self.port = 0
        self.arrived: list[Arrived] = []
        self.steps: deque[Step] = deque()
        self._early = False
        self._came = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks?token=hunter2"

    @property
    def ids(self) -> list[str | None]:
        return [each.id for each in self.arrived]

    async def count(self, count: int, deadline_s: float = 3 * DEADLINE_S) -> None:
        """Wait until `count` requests have come."""
        async with asyncio.timeout(deadline_s), self._came:
            await self._came.wait_for(lambda: len(self.arrived) >= count)

    def answers(self, *statuses: int, **headers: str) -> None:
        for status in statuses:
            lines = [f"HTTP/1.1 {status} So", *(f"{name.replace('_', '-')}: {each}" for name, each in headers.items())]
            self.steps.append(_sends("\r\n".join([*lines, "Content-Length: 2", "", "no"]).encode()))

    def sends(self, data: bytes) -> None:
        """Send that much, and close."""
        self.steps.append(_sends(data, close=True))

    def hangs(self) -> None:
        async def step(_: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        self.steps.append(step)

    def refuses_early(self) -> None:
        """The next one, with 413, as soon as its head has come."""
        self._early = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._early:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                writer.close()
                return
            while request := await _read(reader):
                self.arrived.append(request)
                async with self._came:
                    self._came.notify_all()
                step = self.steps.popleft() if self.steps else _sends(b"HTTP/1.1 204 Taken\r\n\r\n")
                await step(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _sends(data: bytes, *, close: bool = False) -> Step:
    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()
            raise ConnectionResetError

    return step


async def _read(reader: asyncio.StreamReader) -> Arrived | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    method, target, _ = first.split(" ")
    length = {name.lower(): value for name, value in headers}.get("content-length", "0")
    return Arrived(method, target, headers, await reader.readexactly(int(length)))


@asynccontextmanager
async def receiver(port: int = 0) -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", port, limit=2**20)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
