"""What the commands that talk to a server have in common."""

import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from notifier.cli.status import FAILED, UNAVAILABLE, UNKNOWN, USAGE, notice

if TYPE_CHECKING:
    from notifier.client import Client, Gap, NotifierClientError
    from notifier.client.forwarding import ReceiverError

# With --once: longer than a restart or a slow line takes, shorter than what cron runs every few minutes.
ONCE_PATIENCE_S = 60.0
# A server that is away for a night must not fill a log.
NOTICE_EVERY_S = 60.0


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


class Patience:
    """Tells of what is tried again; and ends it, where it happens `once`, after a minute without an answer."""

    def __init__(self, *, once: bool) -> None:
        self._once = once
        self._notice_next = 0.0
        self.heard()

    def heard(self) -> None:
        self._heard = time.monotonic()

    def retry(self, error: "NotifierClientError | ReceiverError", delay_s: float) -> None:
        now = time.monotonic()
        if self._once and now + delay_s > self._heard + ONCE_PATIENCE_S:
            raise error
        if now >= self._notice_next:
            self._notice_next = now + NOTICE_EVERY_S
            notice(f"{error.detail} Trying again in {delay_s:.1f} s, and so on.")


def tell_gap(gap: "Gap") -> None:
    if gap.reason == "reset":
        notice(f"gap: this is another database, or an older one, than the one that issued {gap.after}.")
    else:
        notice(f"gap: messages after {gap.after} can no longer be delivered ({gap.reason}).")
