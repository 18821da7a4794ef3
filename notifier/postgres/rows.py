"""Rows of the log as messages."""

import asyncio
from collections.abc import Sequence

import asyncpg

from notifier.core.messages import Message, is_json_type, plain_type
from notifier.core.strict_json import is_json
from notifier.core.webhooks.kept import headers_of
from notifier.offload import INLINE
from notifier.wire.json import encode_message

# A larger message is encoded here, in a thread if there is much to read, and not in a turn of the event loop.
AHEAD = 4096


async def to_messages(rows: Sequence[asyncpg.Record]) -> list[Message]:
    """The messages of `rows`, which have seq, name, time, body, content_type, fields and headers.

    A body that claims to be JSON, and that some reader could not read, becomes text or bytes: as it is, it would make
    every answer that holds it unreadable. Publishing refuses such JSON, but rows may have come by another way.
    """
    if sum(len(row["body"]) for row in rows) <= INLINE:
        return _to_messages(rows)
    # Not by `offload`: what publishers send waits there, and must not hold up readers.
    return await asyncio.to_thread(_to_messages, rows)


def _to_messages(rows: Sequence[asyncpg.Record]) -> list[Message]:
    messages: list[Message] = []
    for row in rows:
        body, content_type = row["body"], row["content_type"]
        if is_json_type(content_type) and not is_json(body):
            content_type = plain_type(body)
        headers = headers_of(row["headers"])
        message = Message(row["seq"], row["name"], row["time"], body, content_type, row["fields"], headers)
        if len(body) > AHEAD:
            encode_message(message)
        messages.append(message)
    return messages
