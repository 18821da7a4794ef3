"""A stream of server-sent events, as the batches that polls would bring."""

import json

from notifier.client.messages import Batch, Gap, Message, parse_message

# A stream has an event at once, and one at least every 15 s. Where the first is late, something on the way keeps it
# back; where all are, the connection is dead.
FIRST_S, SILENCE_S = 10.0, 40.0
# A stream that ends sooner, or has no event, says that something on the way lets none through; after so many in a row
# the client polls.
SHORT_S, MAX_SHORT = 1.0, 3


class Events:
    """Takes bytes as they come. LookupError, TypeError or ValueError for what Notifier does not send."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Batch]:
        """What is complete with `data`. A gap stands before the messages of its batch."""
        begin = max(0, len(self._rest) - 1)
        self._rest += data
        end = self._rest.rfind(b"\n\n", begin)
        if end < 0:
            return []
        text = self._rest[:end].decode()
        del self._rest[: end + 2]
        batches: list[Batch] = []
        messages: list[Message] = []
        gap: Gap | None = None
        cursor = ""
        for event in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in event.split("\n"))
            if fields.get("event") == "gap":
                if messages:
                    batches.append(Batch(messages, messages[-1].id, gap))
                    messages = []
                given = json.loads(fields["data"])
                gap = Gap(given["reason"], given["after"])
            elif "data" in fields:
                messages.append(parse_message(fields["data"]))
                cursor = messages[-1].id
            elif "id" in fields:
                cursor = fields["id"]
        if cursor:
            batches.append(Batch(messages, cursor, gap))
        elif gap:
            self._rest[:0] = text.encode() + b"\n\n"  # its cursor comes with what follows
        return batches
