"""notifier history"""

import argparse
import sys
from typing import TYPE_CHECKING

from notifier.cli.connection import tell_gap, with_client
from notifier.cli.status import OK, unwritable

if TYPE_CHECKING:
    from notifier.client import Client, Message


def history(arguments: argparse.Namespace) -> int:
    async def show(client: "Client") -> int:
        messages: list[Message] = []
        before: str | None = arguments.before
        # A page ends early where its messages are large, or few among very many.
        while before is not None and len(messages) < arguments.last:
            page = await client.history(
                arguments.topics, before=before, last=arguments.last - len(messages), headers=arguments.headers
            )
            if page.gap:
                tell_gap(page.gap)
            messages[:0] = page.messages
            before = page.before
        sys.stdout.buffer.writelines(message.raw.encode() + b"\n" for message in messages)
        sys.stdout.buffer.flush()
        return OK

    try:
        return with_client(arguments.url, show)
    except BrokenPipeError:
        raise
    except OSError as error:
        return unwritable(error)
