"""A real server among clients that want its memory: it stays within NOTIFIER_MAX_MEMORY and a base, and serves on."""

import asyncio
import json
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from aiohttp import ClientSession
from conftest import DEADLINE_S, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")

MIB = 1024 * 1024
LIMIT = 32 * MIB

# What docs/settings.md says beside the limit: the program and its window, and for each connection.
BASE = 100 * MIB
CONNECTION = 40 * 1024

LARGE = 20
HOST = b"Host: localhost\r\n"
FIELDS = b"".join(b"X-%d: " % n + b"x" * 500 + b"\r\n" for n in range(110))


def peak(pid: int) -> int:
    """The most memory that the process has ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def unread(first: int) -> Callable[[int], bytes]:
    """No two of these get the same answer; without a bound each takes up to 4 MiB."""

    def request(n: int) -> bytes:
        after, limit = first + n % 12, 4 + n // 12
        return b"GET /v1/topics/large,small?after=%d&limit=%d HTTP/1.1\r\n%b\r\n" % (after, limit, HOST)

    return request


def unfinished_head(n: int) -> bytes:
    return b"GET /v1/topics/t HTTP/1.1\r\n" + HOST + FIELDS


def whole_head(n: int) -> bytes:
    return b"GET /v1/topics/t HTTP/1.1\r\n" + HOST + FIELDS + b"\r\n"


def unfinished_body(n: int) -> bytes:
    return b"POST /v1/topics/t HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 999_999


def unknown_source(n: int) -> bytes:
    return b"POST /hooks/none HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 999_999


def one_byte_short(source: str, size: int = 600_000) -> bytes:
    return b"POST /hooks/%b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (source.encode(), HOST, size + 1) + b"x" * size


def behind_a_poll(n: int) -> bytes:
    poll = b"GET /v1/topics/t HTTP/1.1\r\n" + HOST
    return poll + b"\r\n" + poll + FIELDS


class Crowd:
    """Clients that send something and read nothing, and come again when they are thrown out."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: list[asyncio.Task[None]] = []
        self.sent = 0  # clients whose whole request was taken, or that were thrown out

    def add(self, count: int, request: Callable[[int], bytes]) -> None:
        self._tasks += [asyncio.create_task(self._stay(request(n))) for n in range(count)]

    async def _stay(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        for first in (True, False, False):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, ("127.0.0.1", self._port))
                    async with asyncio.timeout(5):
                        await loop.sock_sendall(sock, request)
                except (OSError, TimeoutError):
                    pass
                self.sent += first
                # An answer is left in the socket for a while, then read byte by byte.
                await asyncio.sleep(1)
                try:
                    while await loop.sock_recv(sock, 1):
                        await asyncio.sleep(0.5)
                except OSError:
                    pass

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def posted(client: ClientSession, path: str, data: object) -> int:
    """Publish it, as a client does that tries again when it is told to; the id."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with client.post(path, json=data) as response:
                if response.ok:
                    return int((await response.json())["id"])
                assert response.status == 503
                await asyncio.sleep(int(response.headers["Retry-After"]))


async def served(client: ClientSession, number: int) -> None:
    """Others publish, and get what they wait for."""
    published = await posted(client, "/v1/topics/ordinary", number)
    async with client.get("/v1/topics/ordinary", params={"after": str(published - 1)}) as response:
        assert response.status == 200
        assert [message["data"] for message in json.loads(await response.read())["messages"]] == [number]


@pytest.fixture
def files() -> None:
    """This process may open as many as the crowd needs, and so may those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))


@pytest.mark.usefixtures("files")
async def test_memory_is_bounded_whatever_clients_do(database: str, tmp_path: Path) -> None:
    server = Server(database, tmp_path / "serve.log")
    server.env["NOTIFIER_MAX_MEMORY"] = str(LIMIT)
    server.start()
    crowd = Crowd(server.port)
    try:
        async with ClientSession(server.url) as client:

            async def publish(topic: str, data: object) -> int:
                return await posted(client, f"/v1/topics/{topic}", data)

            first = await publish("large", "x" * 900_000) - 1
            for _ in range(LARGE - 1):
                await publish("large", "x" * 900_000)
            for _ in range(100):
                await publish("small", "x" * 20_000)

            kinds = (unread(first), unfinished_head, unfinished_body, whole_head, behind_a_poll, unknown_source)
            for number, kind in enumerate(kinds, 1):
                crowd.add(200, kind)
                async with asyncio.timeout(3 * DEADLINE_S):
                    while crowd.sent < 200 * number:
                        await asyncio.sleep(0.05)
                await served(client, number)
            assert server.process
            assert peak(server.process.pid) < LIMIT + BASE + 200 * len(kinds) * CONNECTION
    finally:
        await crowd.close()
        server.close()
    assert "ERROR" not in server.log.read_text()


@pytest.mark.usefixtures("files")
async def test_memory_is_bounded_while_thousands_of_webhooks_lack_their_last_byte(
    database: str, tmp_path: Path, sql: asyncpg.Connection
) -> None:
    """To a source that is known, and to one that is not; with the limit that is the default."""
    count = 2000
    await sql.execute("insert into notifier.source (name, scheme, topic, secrets) values ('ci', 'none', 'ci', '{}')")
    server = Server(database, tmp_path / "serve.log")
    server.start()
    crowd = Crowd(server.port)
    try:
        async with ClientSession(server.url) as client:
            await posted(client, "/hooks/ci", "known")
            requests = one_byte_short("ci"), one_byte_short("none")
            for number in range(1, 5):
                crowd.add(count // 4, lambda n: requests[n % 2])
                async with asyncio.timeout(3 * DEADLINE_S):
                    while crowd.sent < count // 4 * number:
                        await asyncio.sleep(0.05)
                await posted(client, "/hooks/ci", number)
                await served(client, number)
            assert server.process
            # The last quarter of the limit is for small bodies.
            assert peak(server.process.pid) < 128 * MIB * 3 // 4 + BASE + count * CONNECTION
    finally:
        await crowd.close()
        server.close()
    assert "ERROR" not in server.log.read_text()
