"""Clients of streams, line by line."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.protocol import DEADLINE_S

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


class Follower:
    """A client of a stream, and what it has been told."""

    def __init__(self, response) -> None:
        self.response = response
        self.lines: list[str] = []

    async def line(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            return (await self.response.content.readline()).decode()

    async def event(self) -> dict[str, str]:
        """The fields of the next event of a stream of events; none at its end."""
        fields = {}
        while (line := await self.line()) not in ("", "\n"):
            name, _, value = line.removesuffix("\n").partition(": ")
            assert name not in fields
            fields[name] = value
        return fields

    async def message(self) -> dict:
        """The next message, whatever the format; signs of life are passed over."""
        while True:
            if self.response.content_type == SSE:
                event = await self.event()
                assert event, "the stream has ended"
                if "data" in event:
                    message = json.loads(event["data"])
                    assert event.get("event") or event["id"] == message["id"]
                    return message
            else:
                line = await self.line()
                assert line, "the stream has ended"
                if line.strip():
                    return json.loads(line)

    async def end(self) -> str:
        """The rest, once the stream has ended as it should."""
        async with asyncio.timeout(DEADLINE_S):
            return (await self.response.content.read()).decode()


@asynccontextmanager
async def follow(app: Any, topics: str, accept: str = SSE, **params: object) -> AsyncIterator[Follower]:
    headers = {"Accept": accept}
    async with app.client.get(f"/v1/topics/{topics}", params=params, headers=headers, timeout=None) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == accept
        yield Follower(response)


def lose_place(app: Any) -> None:
    """As after a hole: what streams have not been told of yet is not in the window."""
    app.service.window.reset(app.service.window.head)
    app.service.lot.reset(0)
