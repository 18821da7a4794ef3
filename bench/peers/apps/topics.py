"""The newest messages of each topic, and the polls that wait for more, for asyncio. The same for all that serve it, so
that only the frameworks differ."""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from itertools import count
from typing import Any

KEPT = 100
WAIT_S = 25.0

numbers = count(1)


class Topic:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.waiting: set[asyncio.Future[None]] = set()

    def since(self, after: int) -> list[dict[str, Any]]:
        return self.messages[bisect_right(self.messages, after, key=lambda message: int(message["id"])) :]


topics: defaultdict[str, Topic] = defaultdict(Topic)


def publish(name: str, data: object) -> dict[str, Any]:
    topic = topics[name]
    message = {"id": str(next(numbers)), "data": data}
    topic.messages.append(message)
    del topic.messages[:-KEPT]
    for future in topic.waiting:
        if not future.done():
            future.set_result(None)
    return {"id": message["id"]}


async def poll(name: str, after: int) -> dict[str, Any]:
    """Wait until there are messages above `after`, 25 s at most. Nothing of it stays when it is cancelled."""
    topic = topics[name]
    if not (messages := topic.since(after)):
        future = asyncio.get_running_loop().create_future()
        topic.waiting.add(future)
        try:
            async with asyncio.timeout(WAIT_S):
                await future
        except TimeoutError:
            pass
        finally:
            topic.waiting.discard(future)
        messages = topic.since(after)
    return {"cursor": messages[-1]["id"] if messages else str(after), "messages": messages}
