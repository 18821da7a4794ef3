"""Behind other proxies as they come: HAProxy's health checks, and a Varnish that holds equal requests back."""

import asyncio
import csv
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from conftest import DEADLINE_S, Running, free_port

pytestmark = pytest.mark.all

CHECKS = {"bare": "option httpchk", "ready": "option httpchk GET /readyz", "alive": "option httpchk HEAD /healthz"}


@asynccontextmanager
async def proxy(command: Sequence[str], port: int) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the proxy that `command` runs, once that listens at `port`."""
    program = shutil.which(command[0], path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program, "make test-all installs it"
    with subprocess.Popen([program, *command[1:]], stdout=subprocess.DEVNULL) as process:
        try:
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(DEADLINE_S)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector, timeout=timeout) as http:
                async with asyncio.timeout(DEADLINE_S):
                    while True:
                        try:
                            async with http.get("/healthz"):
                                break
                        except aiohttp.ClientConnectorError:
                            await asyncio.sleep(0.02)
                yield http
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


async def poll(http: aiohttp.ClientSession, path: str) -> list[object]:
    async with http.get(path) as response:
        assert response.status == 200
        return [message["data"] for message in (await response.json())["messages"]]


@pytest.mark.rule("H-2", "B-5")
async def test_health_checks_of_haproxy_find_the_server_well(app: Running, tmp_path: Path) -> None:
    socket, port = tmp_path / "stats", free_port()
    backends = "".join(
        f"backend {name}\n {check}\n server s {app.client.host}:{app.client.port} check inter 500ms fall 1 rise 1\n"
        for name, check in CHECKS.items()
    )
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"global\n stats socket {socket}\n"
        "defaults\n mode http\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n timeout check 20s\n"
        f"frontend f\n bind 127.0.0.1:{port}\n default_backend bare\n{backends}"
    )

    async def checked() -> dict[str, str]:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"show stat\n")
        rows = csv.DictReader((await reader.read()).decode().splitlines())
        writer.close()
        return {row["# pxname"]: row["check_status"] for row in rows if row["svname"] == "s"}

    async with proxy(["haproxy", "-f", str(config), "-db"], port) as http:
        async with asyncio.timeout(DEADLINE_S):
            while await checked() != dict.fromkeys(CHECKS, "L7OK"):
                await asyncio.sleep(0.02)
        waiting = asyncio.create_task(poll(http, "/v1/topics/t?after=earliest"))
        async with http.post("/v1/topics/t", json=1) as response:
            assert response.status == 201
        assert await waiting == [1]


@pytest.mark.rule("S-31")
async def test_equal_polls_do_not_wait_for_one_another_in_a_varnish(app: Running, tmp_path: Path) -> None:
    port = free_port()
    backend = f"{app.client.host}:{app.client.port}"
    command = ["varnishd", "-F", "-j", "none", "-n", str(tmp_path), "-a", f"127.0.0.1:{port}", "-b", backend]
    async with proxy([*command, "-s", "malloc,16m"], port) as http:
        path = "/v1/topics/t"
        for _ in range(2):
            polls = [asyncio.create_task(poll(http, path)) for _ in range(8)]
            # Those that are held back until the first has been answered would begin only then.
            await app.parked(len(polls))
            published = await app.publish("t", "1")
            for answered in await asyncio.gather(*polls):
                assert answered == [1]
            path = f"/v1/topics/t?after={published}"


@pytest.mark.rule("S-42")
async def test_equal_streams_come_through_a_varnish_message_by_message(app: Running, tmp_path: Path) -> None:
    port = free_port()
    backend = f"{app.client.host}:{app.client.port}"
    command = ["varnishd", "-F", "-j", "none", "-n", str(tmp_path), "-a", f"127.0.0.1:{port}", "-b", backend]
    async with proxy([*command, "-s", "malloc,16m"], port) as http, AsyncExitStack() as stack:
        headers = {"Accept": "text/event-stream"}
        async with asyncio.timeout(DEADLINE_S):
            streams = [await stack.enter_async_context(http.get("/v1/topics/t", headers=headers)) for _ in range(4)]
            for n in range(3):
                await app.publish("t", str(n))
                for stream in streams:
                    while f'"data": {n}'.encode() not in (line := await stream.content.readline()):
                        assert line  # at the end it is empty, at once: no time-out would end this
                        assert b'"data"' not in line
