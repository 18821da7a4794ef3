"""The servers that Notifier is compared with do correct long-polling, and are gone when the run is over."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import psutil
import pytest
from conftest import DEADLINE_S, ROOT, until

from bench.peers import PEERS, Peer, install, serving
from bench.peers.peer import FOLDER
from bench.peers.ruby import RUBY
from bench.peers.serving import runs
from bench.tarpit import FRAMEWORKS

pytestmark = pytest.mark.all

BY_SLUG = {peer.slug: peer for peer in (*PEERS, *(framework.threaded for framework in FRAMEWORKS))}


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    install()
    RUBY.install()


class Client(Protocol):
    """A subscriber of one topic, in a peer's dialect."""

    async def begin(self) -> None: ...
    async def poll(self) -> list[Any]: ...


class Plain:
    def __init__(self, http: aiohttp.ClientSession, topic: str) -> None:
        self.http, self.topic = http, topic
        self.cursor = "0"

    async def begin(self) -> None: ...

    async def poll(self) -> list[Any]:
        async with self.http.get(f"/poll/{self.topic}", params={"after": self.cursor}) as response:
            assert response.status == 200
            assert response.content_length or response.headers["Transfer-Encoding"] == "chunked"
            answer = await response.json()
        self.cursor = answer["cursor"]
        assert all(int(message["id"]) <= int(self.cursor) for message in answer["messages"])
        return [message["data"] for message in answer["messages"]]


class Nchan:
    def __init__(self, http: aiohttp.ClientSession, topic: str) -> None:
        self.http, self.topic = http, topic
        self.headers: dict[str, str] = {}

    async def begin(self) -> None: ...

    async def poll(self) -> list[Any]:
        async with self.http.get(f"/poll/{self.topic}", headers=self.headers) as response:
            assert response.status == 200
            self.headers = {
                "If-Modified-Since": response.headers["Last-Modified"],
                "If-None-Match": response.headers["Etag"],
            }
            return [await response.json()]


class SocketIO:
    """Engine.IO 4 by hand: packets, each a digit for its type and a text, joined by the byte 30."""

    def __init__(self, http: aiohttp.ClientSession, topic: str) -> None:
        self.http, self.topic = http, topic
        self.params = {"EIO": "4", "transport": "polling"}

    async def begin(self) -> None:
        [opened] = await self.receive()
        self.params["sid"] = json.loads(opened[1:])["sid"]
        await self.send("40")
        assert (await self.receive())[0].startswith("40")
        await self.send(f'420["subscribe","{self.topic}"]')
        assert await self.receive() == ["430[]"]

    async def poll(self) -> list[Any]:
        packets = await self.receive()
        return [json.loads(packet[2:])[1]["data"] for packet in packets if packet.startswith("42")]

    async def send(self, packet: str) -> None:
        async with self.http.post("/socket.io/", params=self.params, data=packet) as response:
            assert await response.text() == "ok"

    async def receive(self) -> list[str]:
        async with self.http.get("/socket.io/", params=self.params) as response:
            assert response.status == 200
            return (await response.text()).split("\x1e")


class DurableStreams:
    def __init__(self, http: aiohttp.ClientSession, topic: str) -> None:
        self.http, self.topic = http, topic
        self.offset = ""

    async def begin(self) -> None:
        async with self.http.put(f"/{self.topic}", headers={"Content-Type": "application/json"}) as response:
            assert response.status in (200, 201)
            self.offset = response.headers["Stream-Next-Offset"]

    async def poll(self) -> list[Any]:
        params = {"offset": self.offset, "live": "long-poll"}
        async with self.http.get(f"/{self.topic}", params=params) as response:
            assert response.status == 200
            self.offset = response.headers["Stream-Next-Offset"]
            messages: list[Any] = await response.json()
            return messages


DIALECTS: dict[str, Callable[[aiohttp.ClientSession, str], Client]] = {
    "plain": Plain,
    "nchan": Nchan,
    "socketio": SocketIO,
    "durable-streams": DurableStreams,
}


async def publish(http: aiohttp.ClientSession, peer: Peer, data: object) -> None:
    path = "/t" if peer.dialect == "durable-streams" else "/publish/t"
    async with http.post(path, json=data) as response:
        assert response.status in (201, 202, 204)


async def healthy(http: aiohttp.ClientSession) -> None:
    async with http.get("/health") as response:
        assert response.status == 200


@pytest.mark.parametrize("slug", BY_SLUG)
async def test_a_peer_wakes_parked_polls_and_loses_nothing_between_two(slug: str) -> None:
    peer = BY_SLUG[slug]
    assert peer.missing() is None
    assert re.search(r"\d\.\d", peer.version())
    async with (
        asyncio.timeout(DEADLINE_S),
        serving(peer) as served,
        aiohttp.ClientSession(f"http://127.0.0.1:{served.port}", connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        clients = [DIALECTS[peer.dialect](http, "t") for _ in range(20)]
        for client in clients:
            await client.begin()
        parked = [asyncio.create_task(client.poll()) for client in clients]
        await healthy(http)
        assert not any(poll.done() for poll in parked)
        await publish(http, peer, {"n": 1})
        for poll in parked:
            assert await poll == [{"n": 1}]

        await publish(http, peer, "two")
        await publish(http, peer, [3] if peer.dialect != "durable-streams" else [[3]])  # there a list is a batch
        for client in clients:
            received: list[Any] = []
            while len(received) < 2:
                received += await client.poll()
            assert received == ["two", [3]]

        leaving, *staying = [asyncio.create_task(client.poll()) for client in clients]
        await healthy(http)
        leaving.cancel()
        await publish(http, peer, 4.5)
        for poll in staying:
            assert await poll == [4.5]
        processes = [psutil.Process(pid) for pid in served.pids()]
        assert processes
    assert not any(runs(process) for process in processes)


async def test_a_peer_that_does_not_start_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RuntimeError, match="EADDRINUSE"):
        async with serving(BY_SLUG["node"], taken.getsockname()[1]):
            pass


async def test_a_killed_run_leaves_no_peer_behind(tmp_path: Path) -> None:
    script = """
import asyncio
from bench.peers import PEERS, serving

async def main():
    async with serving(next(peer for peer in PEERS if peer.slug == "flask")) as served:
        print(*served.pids(), flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed run leaves its files
    run = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout
        processes = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
        assert len(processes) == 2  # gunicorn and its worker
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
    await until(lambda: not any(runs(process) for process in processes))


def test_the_peers_share_their_versions_with_notifier_and_name_no_registry() -> None:
    ours, theirs = (
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))
        for path in (ROOT / "requirements.txt", FOLDER / "requirements.txt")
    )
    common = ours.keys() & theirs.keys()
    assert {"aiohttp", "uvloop", "yarl", "multidict"} <= common
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
    for lock in ("requirements.txt", "js/package-lock.json"):
        assert "://" not in (FOLDER / lock).read_text()
