"""A TCP proxy before the database. It breaks the way there in every way that networks break."""

import asyncio
from urllib.parse import parse_qsl, urlencode, urlsplit

from conftest import DEADLINE_S


class Gate:
    """One direction of the traffic. While it is closed, what arrives is kept. `newest` is the last that arrived."""

    newest = b""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._holds = asyncio.Event()

    def close(self) -> None:
        self._holds.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def holds(self) -> None:
        """Return when it keeps something back."""
        async with asyncio.timeout(DEADLINE_S):
            await self._holds.wait()

    async def passed(self) -> None:
        if not self._open.is_set():
            self._holds.set()
            await self._open.wait()


class TcpProxy:
    """Use as `async with TcpProxy(url) as proxy`, and connect to `proxy.url`.

    `requests` and `replies` can be closed, each alone or both. Both are a black hole: nothing gets through, and no side
    notices. `refuses`: new connections are closed at once. `bytes_per_s` makes replies slow.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._options = dict(parse_qsl(self._parts.query))
        self._paths: set[asyncio.Task[None]] = set()
        self.requests = Gate()
        self.replies = Gate()
        self.refuses = False
        self.bytes_per_s: int | None = None
        self.url = ""

    async def __aenter__(self) -> "TcpProxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        host, port = self._server.sockets[0].getsockname()
        credentials = self._parts.netloc.rpartition("@")[0]
        # Only what is not encrypted can be held back message by message.
        options = {name: value for name, value in self._options.items() if name not in {"host", "port"}}
        self.url = self._parts._replace(
            netloc=f"{credentials}@{host}:{port}", query=urlencode(options | {"sslmode": "disable"})
        ).geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Break every connection that there is; what is held back is lost."""
        paths = list(self._paths)
        for path in paths:
            path.cancel()
        await asyncio.gather(*paths, return_exceptions=True)

    def black_hole(self) -> None:
        """From now on, nothing arrives anywhere, on old connections and new ones."""
        self.requests.close()
        self.replies.close()

    def heal(self) -> None:
        self.refuses = False
        self.bytes_per_s = None
        self.requests.open()
        self.replies.open()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        path = asyncio.create_task(self._forward(reader, writer))
        self._paths.add(path)
        path.add_done_callback(self._paths.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            answers, questions = await self._connect()
            writers.append(questions)
            pumps = [
                asyncio.create_task(self._pump(reader, questions, self.requests)),
                asyncio.create_task(self._pump(answers, writer, self.replies, slow=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the server is away: the client finds its connection closed
        finally:
            for each in writers:
                each.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self._options.get("host") or self._parts.hostname or "127.0.0.1"
        port = self._options.get("port") or self._parts.port or 5432
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: Gate, *, slow: bool = False
    ) -> None:
        while chunk := await reader.read(65536):
            gate.newest = chunk
            await gate.passed()
            if slow and self.bytes_per_s:
                await asyncio.sleep(len(chunk) / self.bytes_per_s)
            writer.write(chunk)
            await writer.drain()
        await gate.passed()  # behind a black hole, not even the end of the connection is seen
