"""notifier publish"""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from notifier.cli.connection import with_client
from notifier.cli.status import FAILED, OK, notice

if TYPE_CHECKING:
    from notifier.client import Client

# The server's own limit is at most 16 MiB; this only keeps an endless stream out of memory.
MAX_STDIN = 64 * 2**20
TEXT = "text/plain; charset=utf-8"
# What `curl -d` sends: the server stores it as JSON if it is valid JSON, else as text.
JSON_OR_TEXT = "application/x-www-form-urlencoded"


def publish(arguments: argparse.Namespace) -> int:
    data = os.fsencode(arguments.data)
    if data == b"-":
        data = sys.stdin.buffer.read(MAX_STDIN + 1)
        if len(data) > MAX_STDIN:
            notice("Standard input is larger than a message can be.")
            return FAILED

    async def send(client: "Client") -> int:
        published = await client.publish(
            arguments.topic,
            data,
            content_type=arguments.type or JSON_OR_TEXT,
            title=arguments.title,
            click=arguments.click,
            priority=arguments.priority,
            tags=arguments.tags,
            delay=arguments.delay,
            at=arguments.at,
            idempotency_key=arguments.idempotency_key,
            timeout_s=arguments.timeout,
        )
        sys.stdout.write(f"{published.id}\n")
        return OK

    return with_client(arguments.url, send)
