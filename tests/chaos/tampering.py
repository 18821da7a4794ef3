"""Wrong answers on purpose, to see that they are noticed."""

import json
from collections.abc import Callable
from typing import Any

from chaos.oracle import Asked

WAYS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "skip": lambda messages: messages[1:],
    "repeat": lambda messages: [*messages, messages[-1]],
    "swap": lambda messages: messages[::-1],
}


class Tampering:
    """Changes one answer in one way: the first to a cursor that has several messages."""

    def __init__(self, way: str | None) -> None:
        self._change = WAYS[way] if way else None

    def __call__(self, asked: Asked, body: bytes) -> bytes:
        if self._change is None or asked.after is None:
            return body
        answer = json.loads(body)
        if len(answer["messages"]) < 2:
            return body
        answer["messages"] = self._change(answer["messages"])
        self._change = None
        return json.dumps(answer).encode()
