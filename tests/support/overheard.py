"""A way to a server that overhears what browsers ask, preflights too, which no script and no tool of theirs shows."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

_REQUEST = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.1\r\n", re.MULTILINE)


class Exchange(NamedTuple):
    """A request, and the bytes of its answer, as far as they have come."""

    method: str
    target: str
    answer: bytearray


class Overheard:
    """All exchanges through `url`, in order. Browsers send a head in one piece and wait for its answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.exchanges: list[Exchange] = []

    def of(self, method: str, path: str = "/v1/topics/") -> list[Exchange]:
        return [each for each in self.exchanges if each.method == method and each.target.startswith(path)]

    def answers(self, path: str) -> Iterator[tuple[int, str]]:
        """Status and body of each whole answer to a request for `path`, whatever its query."""
        for exchange in self.exchanges:
            if exchange.target.partition("?")[0] == path and b"\r\n\r\n" in exchange.answer:
                head, _, body = bytes(exchange.answer).partition(b"\r\n\r\n")
                yield int(head.split()[1]), body.decode()


@asynccontextmanager
async def overhearing(port: int) -> AsyncIterator[Overheard]:
    """A way to the server that listens on `port`, or will again."""
    lines: set[asyncio.Task[None]] = set()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, current: list[Exchange]) -> None:
        while chunk := await reader.read(65536):
            for method, target in _REQUEST.findall(chunk):
                current[:] = [Exchange(method.decode(), target.decode(), bytearray())]
                overheard.exchanges += current
            writer.write(chunk)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, current: list[Exchange]) -> None:
        while chunk := await reader.read(65536):
            for exchange in current:
                exchange.answer.extend(chunk)
            writer.write(chunk)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current: list[Exchange] = []
        writers = [writer]
        try:
            with suppress(OSError):  # the server is away, or a side hung up
                answers, questions = await asyncio.open_connection("127.0.0.1", port)
                writers.append(questions)
                both = [
                    asyncio.ensure_future(ask(reader, questions, current)),
                    asyncio.ensure_future(answer(answers, writer, current)),
                ]
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for each in both:
                        each.cancel()
                    await asyncio.gather(*both, return_exceptions=True)
        finally:
            for each_writer in writers:
                each_writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(forward(reader, writer))
        lines.add(task)
        task.add_done_callback(lines.discard)

    server = await asyncio.start_server(accept, "127.0.0.1")
    overheard = Overheard(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    yield overheard
    server.close()
    for line in list(lines):
        line.cancel()
    await asyncio.gather(*lines, return_exceptions=True)
