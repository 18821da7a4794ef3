"""A stream of server-sent events, as the batches that polls would bring."""

import json

from notifier.client.http import MAX_ANSWER, RETRY_AFTER_MAX_S
from notifier.client.messages import Batch, Gap, Message, parse_message

# A stream has an event at once, and one at least every 15 s. Where the first is late, something on the way keeps it
# back; where all are, the connection is dead.
FIRST_S, SILENCE_S = 10.0, 40.0
# A stream that ends sooner, or has no event, says that something on the way lets none through; after so many in a row
# the client polls.
SHORT_S, MAX_SHORT = 1.0, 3


class Events:
    """Takes bytes as they come. LookupError, TypeError or ValueError for what Notifier does not send.

    `retry_s`: the stream has said that it ends, and how long its client should stay away.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self.retry_s: float | None = None

    def feed(self, data: bytes) -> list[Batch]:
        """What is complete with `data`. A gap stands before the messages of its batch."""
        begin = max(0, len(self._rest) - 1)
        self._rest += data
        end = self._rest.rfind(b"\n\n", begin)
        if end < 0:
            if len(self._rest) > MAX_ANSWER:
                raise ValueError("an event that does not end")
            return []
        text = self._rest[:end].decode()
        del self._rest[: end + 2]
        batches: list[Batch] = []
        messages: list[Message] = []
        gap: Gap | None = None
        cursor = rest = ""
        for event in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in event.split("\n"))
            if fields.get("event") == "gap":
                if cursor:
                    batches.append(Batch(messages, cursor, gap))
                    messages, cursor = [], ""
                given = json.loads(fields["data"])
                gap = Gap(given["reason"], given["after"])
                rest = event
            elif "data" in fields:
                messages.append(parse_message(fields["data"]))
                cursor = messages[-1].id
            elif "id" in fields:
                cursor = fields["id"]
            if "id" in fields and "retry" in fields:
                self.retry_s = min(int(fields["retry"]) / 1000, RETRY_AFTER_MAX_S)
        if cursor:
            batches.append(Batch(messages, cursor, gap))
        elif gap:
            self._rest[:0] = rest.encode() + b"\n\n"  # its cursor comes with what follows
        return batches
