"""The newest messages of each topic, and the polls that wait for more, for threads."""

from bisect import bisect_right
from itertools import count
from threading import Condition
from typing import Any

KEPT = 100
WAIT_S = 25.0

numbers = count(1)


class Topic:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.changed = Condition()

    def since(self, after: int) -> list[dict[str, Any]]:
        return self.messages[bisect_right(self.messages, after, key=lambda message: int(message["id"])) :]


topics: dict[str, Topic] = {}


def publish(name: str, data: object) -> dict[str, Any]:
    topic = topics.setdefault(name, Topic())
    with topic.changed:
        message = {"id": str(next(numbers)), "data": data}
        topic.messages.append(message)
        del topic.messages[:-KEPT]
        topic.changed.notify_all()
    return {"id": message["id"]}


def poll(name: str, after: int) -> dict[str, Any]:
    """Wait until there are messages above `after`, 25 s at most. WSGI tells nobody that a client has hung up, so the
    thread of one that did is free again when its wait is over."""
    topic = topics.setdefault(name, Topic())
    with topic.changed:
        topic.changed.wait_for(lambda: topic.since(after), WAIT_S)
        messages = topic.since(after)
    return {"cursor": messages[-1]["id"] if messages else str(after), "messages": messages}
