"""What the commands that talk to a server have in common."""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from notifier.cli.status import FAILED, UNAVAILABLE, UNKNOWN, USAGE, notice

if TYPE_CHECKING:
    from notifier.client import Client


def with_client(url: str, work: Callable[["Client"], Awaitable[int]]) -> int:
    import asyncio

    from notifier.client import Client, NotifierClientError

    async def run(client: Client) -> int:
        async with client:
            return await work(client)

    try:
        # The key is not an argument, because all users of the machine can see arguments.
        # Of several admin keys, any will do.
        admin_keys = os.environ.get("NOTIFIER_ADMIN_KEY", "").split()
        client = Client(url, os.environ.get("NOTIFIER_KEY") or next(iter(admin_keys), None))
    except ValueError as error:
        notice(str(error))
        return USAGE
    try:
        return asyncio.run(run(client))
    except UnicodeEncodeError:
        notice("An argument is not text in UTF-8.")
        return USAGE
    except NotifierClientError as error:
        notice(error.detail)
        if error.code == "outcome_unknown":
            return UNKNOWN
        return UNAVAILABLE if error.temporary else FAILED
