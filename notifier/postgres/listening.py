"""LISTEN, tested: a transaction pooler accepts it, and then nothing ever comes."""

import asyncio
import secrets
from collections.abc import Callable, Mapping

import asyncpg

from notifier.postgres.database import Connection, Database

# How long a notification to ourselves may take before we believe that none will come.
PROBE_S = 2.0
TIMEOUT_S = 3.0

PROBED = "notifier_probe"
PROBE = f"select pg_notify('{PROBED}', '{{nonce}}') where notifier.may_notify()"


async def listen(
    connection: Connection, publishing: Database, channels: Mapping[str, Callable[..., None]]
) -> bool | None:
    """Have `connection` listen to `channels`, and say whether notifications from `publishing` arrive.

    None where the notification queue is full, so that a test is impossible.
    """
    nonce = secrets.token_hex(16)
    heard = asyncio.Event()

    def on_probe(*notification: object) -> None:
        if notification[-1] == nonce:
            heard.set()

    # Without a connection nothing will come either, and that says nothing about poolers.
    connection.add_termination_listener(lambda _: heard.set())
    await connection.add_listener(PROBED, on_probe)
    for channel, on_notification in channels.items():
        await connection.add_listener(channel, on_notification)
    # On another connection: a pooler may well return what comes from the same one.
    other = await publishing.connect("probe", command_timeout_s=TIMEOUT_S)
    try:
        async with publishing.calls(other):
            sent = await other.fetch(PROBE.format(nonce=nonce))
    except asyncpg.ProgramLimitExceededError:
        sent = []
    finally:
        other.terminate()
    if not sent:
        return None
    try:
        async with asyncio.timeout(PROBE_S):
            await heard.wait()
    except TimeoutError:
        return False
    await connection.remove_listener(PROBED, on_probe)
    return True
