"""Behind a real nginx, with the configuration that the README gives."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from conftest import DEADLINE_S, ROOT, Server
from support.nginx import nginx

from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[str]:
    """The URL of an nginx in front of `server`."""
    [block] = re.findall(r"^  ```nginx\n(.*?)^  ```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    with nginx(block.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}"), tmp_path) as url:
        yield url


@pytest.mark.all
async def test_polls_wait_and_are_woken_through_nginx(proxy: str) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S + 30)) as http:

        async def get(path: str) -> dict:
            async with asyncio.timeout(DEADLINE_S):
                while True:  # nginx takes a moment to listen
                    try:
                        async with http.get(f"{proxy}{path}") as response:
                            assert response.status == 200
                            return await response.json()
                    except aiohttp.ClientConnectorError:
                        await asyncio.sleep(0.02)

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
@pytest.mark.rule("W-6")
async def test_the_headers_of_a_webhook_come_back_through_nginx(proxy: str, database: str) -> None:
    """nginx takes a head of 4 kB from the servers behind it, and nothing that is no header."""
    await add_source(database, check_source("ci", "none", "ci"))
    headers = {"X-Event": "push", "X.Dot!#$%&'*+^_`|~": "odd", "X_Under": "ü", "X-Tab": "a\tb"}
    headers |= {f"X-Large-{n}": "v" * 600 for n in range(12)}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S)) as http:
        async with asyncio.timeout(DEADLINE_S):
            while True:  # nginx takes a moment to listen
                try:
                    async with http.post(f"{proxy}/hooks/ci", data=b"{}", headers=headers) as response:
                        assert response.status == 200, await response.text()
                        answer = await response.json()
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.02)
        async with http.get(f"{proxy}/v1/messages/{answer['id']}") as response:
            assert response.status == 200, await response.text()
            kept = {name for name in response.headers if name.startswith("Notifier-Header-X")}
    assert "Notifier-Header-X-Event" in kept
    assert len([name for name in kept if "Large" in name]) >= 3
