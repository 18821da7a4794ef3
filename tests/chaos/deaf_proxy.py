"""A way to the database on which notifications are lost."""

import asyncio
import struct
from urllib.parse import urlsplit


class DeafProxy:
    """Use as `async with DeafProxy(url) as proxy` and connect to `proxy.url`. While `deaf`, notifications do not get
    through, and all else does."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._paths: set[asyncio.Task[None]] = set()
        self.deaf = False
        self.lost = 0
        self.url = ""

    async def __aenter__(self) -> "DeafProxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        port = self._server.sockets[0].getsockname()[1]
        credentials = self._parts.netloc.rpartition("@")[0]
        self.url = self._parts._replace(netloc=f"{credentials}@127.0.0.1:{port}", query="sslmode=disable").geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for path in self._paths:
            path.cancel()
        await asyncio.gather(*self._paths, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = asyncio.create_task(self._forward(reader, writer))
        self._paths.add(path)
        path.add_done_callback(self._paths.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            answers, questions = await asyncio.open_connection(self._parts.hostname, self._parts.port)
            writers.append(questions)
            ways = [asyncio.create_task(_copy(reader, questions)), asyncio.create_task(self._filter(answers, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            for each in writers:
                each.transport.abort()

    async def _filter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Message by message: a kind, and a length that counts itself."""
        while True:
            head = await reader.readexactly(5)
            kind, length = struct.unpack("!cI", head)
            rest = await reader.readexactly(length - 4)
            if kind == b"A" and self.deaf:
                self.lost += 1
                continue
            writer.write(head + rest)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
