"""An ordered stop of the real server: no client loses anything, and none can hold it up."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from conftest import DEADLINE_S, Server, data, until
from support.by_hand import Client, ask, request
from support.halting import eventually
from support.log import backends
from support.servers import Postgres
from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.usefixtures("tidy")

CROWD = 300
# The longest that a stop may take.
STOP_S = 10


async def poll(server: Server, topics: str, after: str) -> dict:
    status, body = await ask(server, "GET", f"/v1/topics/{topics}?after={after}&wait=20")
    assert status == 200
    return json.loads(body)


async def parked(server: Server, count: int) -> list[Client]:
    """So many clients, parked on `orders`."""
    clients = [await Client.connect(server) for _ in range(count)]
    for client in clients:
        client.send("GET", "/v1/topics/orders?wait=20")
    for _ in range(3):  # requests sent after them have been answered, so they have been read too
        assert (await ask(server, "GET", "/healthz"))[0] == 200
    return clients


async def ended(server: Server) -> int:
    """The exit code."""
    assert server.process
    return await asyncio.to_thread(server.process.wait, STOP_S)


def terminate(server: Server, how: signal.Signals = signal.SIGTERM) -> None:
    assert server.process
    server.process.send_signal(how)


@pytest.mark.rule("H-3")
async def test_parked_polls_are_answered_and_lose_nothing_over_the_restart(
    server: Server, sql: asyncpg.Connection
) -> None:
    clients = await parked(server, CROWD)
    terminate(server)
    cursors = set()
    for client in clients:
        status, headers, body = await client.answer()
        answer = json.loads(body)
        assert status == 200
        assert headers["connection"] == "close"
        assert int(headers["retry-after"]) > 0
        assert answer["messages"] == []
        cursors.add(answer["cursor"])
        await client.closed()
    [cursor] = cursors
    assert await ended(server) == 0
    assert f"stopping: {CROWD} parked polls" in server.log.read_text()
    await sql.execute("select notifier.publish('orders', '1'), notifier.publish('orders', '2')")
    server.start()
    answer = await poll(server, "orders", cursor)
    while len(answer["messages"]) < 2:
        more = await poll(server, "orders", answer["cursor"])
        answer = {"messages": answer["messages"] + more["messages"], "cursor": more["cursor"]}
    assert data(answer) == [1, 2]


@pytest.mark.rule("H-2")
async def test_a_stopping_server_says_so_and_still_answers(server: Server, sql: asyncpg.Connection) -> None:
    [client] = await parked(server, 1)
    idle = await Client.connect(server)
    terminate(server)
    await client.answer()
    assert (await ask(server, "GET", "/readyz"))[0] == 503
    assert (await ask(server, "GET", "/healthz"))[0] == 200
    assert (await ask(server, "POST", "/v1/topics/orders", "1"))[0] == 201
    late = await Client.connect(server)
    late.send("GET", "/v1/topics/other?wait=20")
    status, headers, body = await late.answer()
    assert status == 200
    assert headers["connection"] == "close"
    assert json.loads(body)["messages"] == []
    assert await ended(server) == 0
    await idle.closed()
    assert await sql.fetchval("select count(*) from notifier.message") == 1


@pytest.mark.rule("H-3")
async def test_no_client_holds_up_the_stop(server: Server, sql: asyncpg.Connection) -> None:
    cursor = json.loads((await ask(server, "GET", "/v1/topics/large?wait=0"))[1])["cursor"]
    await sql.execute("select notifier.publish_bytes('large', decode(repeat('00', 8 * 1024 * 1024), 'hex'))")
    await poll(server, "large", cursor)
    with socket.socket() as deaf, socket.socket() as halting, socket.socket() as stammering:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for sock in (deaf, halting, stammering):
            sock.connect(("127.0.0.1", server.port))
        deaf.sendall(request("GET", f"/v1/topics/large?after={cursor}").encode())
        assert await asyncio.to_thread(deaf.recv, 15) == b"HTTP/1.1 200 OK"  # and then it reads no more
        halting.sendall(b"POST /v1/topics/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf")
        stammering.sendall(b"POST /v1/topics/orders HTT")
        [client] = await parked(server, 1)
        terminate(server)
        status, _, _ = await client.answer()
        assert status == 200
        assert await ended(server) == 0
    assert "Traceback" not in server.log.read_text()


async def test_a_stop_by_ctrl_c_does_not_wait_for_routers_to_notice(
    server: Server, database: str, tmp_path: Path
) -> None:
    other = Server(database, tmp_path / "other.log")
    try:
        other.start()
        [client] = await parked(server, 1)
        terminate(other, signal.SIGTERM)
        await until(lambda: "stopping" in other.log.read_text())
        terminate(server, signal.SIGINT)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await ended(server) == 0
        assert other.process.poll() is None
        assert await ended(other) == 0
    finally:
        other.close()


async def test_more_signals_change_nothing(server: Server) -> None:
    clients = await parked(server, 10)
    assert server.process
    async with asyncio.timeout(DEADLINE_S):
        while server.process.poll() is None:
            terminate(server)
            await asyncio.sleep(0.0005)
    assert server.process.returncode == 0
    for client in clients:
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_stops_also_while_it_waits_for_its_database(
    proxy: TcpProxy, tmp_path: Path, how: signal.Signals
) -> None:
    proxy.black_hole()
    server = Server(proxy.url, tmp_path / "serve.log")
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    await proxy.requests.holds()
    terminate(server, how)
    assert await ended(server) == 0
    with pytest.raises(AssertionError, match="stopped before the start was complete"):
        await starting
    assert "Traceback" not in server.log.read_text()


async def test_a_stop_leaves_nothing_behind(server: Server, sql: asyncpg.Connection) -> None:
    assert server.process
    family = psutil.Process(server.process.pid).children(recursive=True)
    terminate(server, signal.SIGINT)
    assert await ended(server) == 0
    assert not psutil.wait_procs(family, timeout=STOP_S)[1]
    await eventually(lambda: backends(sql, ".*"), lambda found: not found)


@pytest.fixture
def server_on_ours(url_of_ours: str, tmp_path: Path) -> Iterator[Server]:
    server = Server(url_of_ours, tmp_path / "serve.log")
    server.start()
    yield server
    server.close()


async def test_a_server_stops_also_while_the_database_is_frozen(
    server_of_ours: Postgres, server_on_ours: Server
) -> None:
    server = server_on_ours
    clients = await parked(server, 10)
    server_of_ours.freeze()
    publisher = await Client.connect(server)
    publisher.send("POST", "/v1/topics/orders", "1")
    reader = await Client.connect(server)
    reader.send("GET", "/v1/topics/orders?after=earliest")
    assert (await ask(server, "GET", "/healthz"))[0] == 200  # both have been read
    terminate(server)
    for client in clients:
        assert (await client.answer())[0] == 200
    status, headers, _ = await publisher.answer()
    assert (status, "retry-after" in headers) in {(504, False), (503, True)}
    assert await ended(server) == 0
