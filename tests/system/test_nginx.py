"""Behind a real nginx, with the configuration that docs/operations.md gives."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client import URL
from conftest import DEADLINE_S, Server
from support.nginx import documented, nginx

from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source


@pytest.fixture
def block(server: Server) -> str:
    """The configuration that docs/operations.md gives, for `server`."""
    return documented().replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")


@pytest.fixture
def proxy(block: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an nginx in front of `server`."""
    with nginx(block, tmp_path) as url:
        yield url


@asynccontextmanager
async def reached(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client, once a proxy listens at `url`."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S)) as http:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    async with http.get(f"{url}/healthz"):
                        break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.02)
        yield http


@pytest.mark.all
async def test_polls_wait_and_are_woken_through_nginx(proxy: str) -> None:
    async with reached(proxy) as http:

        async def get(path: str) -> dict:
            async with http.get(f"{proxy}{path}") as response:
                assert response.status == 200
                return await response.json()

        cursor = (await get("/v1/topics/t?wait=0"))["cursor"]
        polls = [asyncio.create_task(get(f"/v1/topics/t?after={cursor}&wait=20&n={n}")) for n in range(50)]
        large = "x" * 500_000
        for body in ("first", large):
            async with http.post(f"{proxy}/v1/topics/t", json=body) as response:
                assert response.status == 201
        for answer in await asyncio.gather(*polls):
            assert answer["messages"][0]["data"] == "first"
        after = (await get(f"/v1/topics/t?after={cursor}&wait=0"))["messages"]
        assert [message["data"] for message in after] == ["first", large]


@pytest.mark.all
@pytest.mark.rule("S-42")
@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_streams_come_through_nginx_message_by_message(proxy: str, accept: str) -> None:
    """It buffers answers, but for those that tell it not to."""
    async with (
        reached(proxy) as http,
        http.get(f"{proxy}/v1/topics/t", headers={"Accept": accept}) as stream,
        asyncio.timeout(DEADLINE_S),
    ):
        assert stream.content_type == accept
        for n in range(5):
            async with http.post(f"{proxy}/v1/topics/t", json=n) as response:
                assert response.status == 201
            while f'"data": {n}'.encode() not in (line := await stream.content.readline()):
                assert line  # at the end it is empty, at once: no time-out would end this
                assert b'"data"' not in line


@pytest.mark.all
@pytest.mark.rule("W-6")
async def test_the_headers_of_a_webhook_come_back_through_nginx(proxy: str, database: str) -> None:
    """nginx takes a head of 4 kB from the servers behind it, and nothing that is no header."""
    await add_source(database, check_source("ci", "none", "ci"))
    headers = {"X-Event": "push", "X.Dot!#$%&'*+^_`|~": "odd", "X_Under": "ü", "X-Tab": "a\tb"}
    headers |= {f"X-Large-{n}": "v" * 600 for n in range(12)}
    async with reached(proxy) as http:
        async with http.post(f"{proxy}/hooks/ci", data=b"{}", headers=headers) as response:
            assert response.status == 200, await response.text()
            answer = await response.json()
        async with http.get(f"{proxy}/v1/messages/{answer['id']}") as response:
            assert response.status == 200, await response.text()
            kept = {name for name in response.headers if name.startswith("Notifier-Header-X")}
    assert "Notifier-Header-X-Event" in kept
    assert len([name for name in kept if "Large" in name]) >= 3


@pytest.mark.all
@pytest.mark.rule("T-4", "P-12", "E-7")
async def test_the_longest_list_and_body_reach_the_server_through_nginx(proxy: str) -> None:
    topics = ",".join(f"{n:03d}/".ljust(255, "t") for n in range(100))
    async with reached(proxy) as http:
        async with http.get(f"{proxy}/v1/topics/{topics}?wait=0") as response:
            assert (response.status, (await response.json())["messages"]) == (200, [])
        # What is too large is refused in our words, which clients understand.
        async with http.post(f"{proxy}/v1/topics/t", data=BytesIO(b"x" * 3 * 2**20)) as response:
            assert (response.status, (await response.json())["code"]) == (413, "too_large")
        async with http.get(
            f"{proxy}/v1/topics/{topics},{topics}?wait=0", headers={"X-Filler": "x" * 20_000}
        ) as answer:
            assert (answer.status, (await answer.json())["code"]) == (431, "head_too_large")


@pytest.mark.all
@pytest.mark.rule("P-1")
async def test_everything_works_below_a_path(block: str, tmp_path: Path) -> None:
    below = block.replace("location / {", "location /live/ {").replace("http://notifier;", "http://notifier/;")
    assert below.count("/live/") == 1
    with nginx(below, tmp_path) as url:
        async with reached(f"{url}/live") as http:
            for path in ("/", "/client.js", "/client/tabs.js", "/healthz"):
                async with http.get(f"{url}/live{path}") as response:
                    assert response.status == 200
            async with http.post(f"{url}/live/v1/topics/a/b+c=d:e@f.g_-", data=b"2") as response:
                location = response.url.join(URL(response.headers["Location"], encoded=True))
            async with http.get(location) as response:
                assert await response.read() == b"2"
