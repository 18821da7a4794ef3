"""Streams, as programs that others have written read them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from conftest import DEADLINE_S, ROOT, Server
from httpx_sse import aconnect_sse
from support.npm import installed

from notifier.client import Client

FOLDER = ROOT / "tests" / "eventsource"

pytestmark = pytest.mark.all


@asynccontextmanager
async def program(*command: str, **options: object) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process) -> dict:
    assert process.stdout
    async with asyncio.timeout(DEADLINE_S):
        return json.loads(await process.stdout.readline())


@pytest.mark.rule("S-43", "S-46")
async def test_eventsource_of_npm_goes_on_over_a_restart(server: Server) -> None:
    """And brings a key, which that of browsers cannot."""
    installed(FOLDER)
    server.stop()
    server.env |= {"NOTIFIER_ADMIN_KEY": "the-key-of-a-test"}
    server.start()
    command = ("node", "follow.mjs", server.url, "a/*", "5", "the-key-of-a-test")
    async with program(*command, cwd=FOLDER) as node:
        assert await line(node) == {"open": True}
        async with Client(server.url, key="the-key-of-a-test") as client:
            for n in range(3):
                published = await client.publish(f"a/{n}", n)
                got = await line(node)
                assert (got["message"]["data"], got["lastEventId"]) == (n, published.id)
        server.stop()
        server.start()
        async with Client(server.url, key="the-key-of-a-test") as client:
            for n in range(3, 6):
                await client.publish(f"a/{n}", n)
        found = []
        while 5 not in found:
            got = await line(node)
            found += [got["message"]["data"]] if "message" in got else []
        assert found == [3, 4, 5]
        assert await node.wait() == 0


@pytest.mark.rule("S-43", "S-46")
async def test_httpx_sse_goes_on_over_a_restart(server: Server) -> None:
    """Which does not come back by itself: its user does, with the id of the last event."""
    server.stop()
    server.env |= {"NOTIFIER_ADMIN_KEY": "the-key-of-a-test"}
    server.start()
    # What other readers have taken for the end of a line.
    breaks = ["a\u2028b\u2029c", "a\x85b\x0bc\x0cd", "a\nb\r\nc\rd\n\n", "a\n\nid: 7\nevent: gap\n\n", "\ufeffab\0"]
    last = "7"  # which is none of this database's
    found, gaps = [], []
    async with (
        httpx.AsyncClient(headers={"Authorization": "Bearer the-key-of-a-test"}, timeout=DEADLINE_S) as http,
        Client(server.url, key="the-key-of-a-test") as client,
        asyncio.timeout(2 * DEADLINE_S),
    ):
        published = [(await client.publish("a/1", text)).id for text in breaks]
        published += [(await client.publish("a/1", text.encode(), content_type="text/plain")).id for text in breaks]
        pretty = b'{\r\n  "x":\n\n[1,\r2]\n}'
        published.append((await client.publish("a/1", pretty, content_type="application/json")).id)
        for _ in range(2):
            url, headers = f"{server.url}/v1/topics/a/*?after=latest", {"Last-Event-ID": last}
            async with aconnect_sse(http, "GET", url, headers=headers) as stream:
                assert stream.response.status_code == 200
                events = stream.aiter_sse()
                assert (await anext(events)).retry == 2000
                while last != published[-1]:
                    event = await anext(events)
                    if event.event == "gap":
                        gaps.append(event.json())
                    elif event.data:
                        found.append(event.json())
                        assert event.id == found[-1]["id"]
                    last = event.id or last
                server.stop()
                assert [event.retry async for event in events][-1] == 1000
            server.start()
            # As many clients do, it comes back with the id of an event without a message too.
            published.append((await client.publish("a/2", "after the restart")).id)
    assert gaps == [{"reason": "reset", "after": "0"}]
    assert [message["id"] for message in found] == published[:-1]
    assert [message["data"] for message in found] == [*breaks, *breaks, {"x": [1, 2]}, "after the restart"]


@pytest.mark.rule("S-44")
async def test_curl_and_jq_follow(server: Server) -> None:
    url = f"{server.url}/v1/topics/a/*?after=earliest"
    follow = f"curl -sN -H 'Accept: application/x-ndjson' '{url}' | jq --unbuffered -c '{{topic, data}}'"
    async with Client(server.url) as client, program("sh", "-c", follow) as shell:
        for n in range(3):
            await client.publish(f"a/{n}", {"n": n})
            assert await line(shell) == {"topic": f"a/{n}", "data": {"n": n}}
        server.stop()  # which ends the stream whole
        async with asyncio.timeout(DEADLINE_S):
            assert await shell.wait() == 0
