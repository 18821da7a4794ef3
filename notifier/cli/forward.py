"""notifier forward"""

import argparse
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from notifier.cli.connection import Patience, tell_gap, with_client
from notifier.cli.cursor_file import CursorFile
from notifier.cli.status import FAILED, OK, UNAVAILABLE, USAGE, notice, unwritable

if TYPE_CHECKING:
    from notifier.client import Client, Message
    from notifier.client.forwarding import Forwarder


def forward(arguments: argparse.Namespace) -> int:
    from notifier.client.forwarding import Forwarder, Receiver, ReceiverError

    begin = {"after": arguments.after, "since": arguments.since, "last": arguments.last}
    kept = CursorFile(arguments.state) if arguments.state else None
    try:
        if kept and (cursor := kept.load()):
            begin = {"after": cursor}
        receiver = Receiver(arguments.receiver, _headers(arguments.headers), silence_s=arguments.timeout)
    except (OSError, ValueError) as error:
        notice(str(error))
        return USAGE
    patience = Patience(once=arguments.once or bool(arguments.ids))

    async def follow(client: "Client") -> int:
        subscription = client.subscribe(
            arguments.topics,
            **begin,
            once=arguments.once,
            headers=True,
            on_gap=tell_gap,
            on_retry=patience.retry,
        )
        sending = _Sending(Forwarder(client, receiver, patience.retry), patience, kept)
        async with aclosing(subscription.batches()) as batches:
            async for batch in batches:
                patience.heard()
                for message in batch.messages:
                    if not await sending.send(message) and arguments.strict:
                        return FAILED
                sending.passed(batch.cursor)
        return FAILED if sending.refused else OK

    async def redeliver(client: "Client") -> int:
        sending = _Sending(Forwarder(client, receiver, patience.retry), patience, None)
        async for id_, message in _find(client, arguments, patience):
            if message is None:
                notice(f"There is no message {id_} on {arguments.topics}, or it is older than the retention.")
            if message is None or not await sending.send(message):
                sending.refused = True
                if arguments.strict:
                    break
        return FAILED if sending.refused else OK

    async def work(client: "Client") -> int:
        async with receiver:
            try:
                return await (redeliver(client) if arguments.ids else follow(client))
            except ReceiverError as error:  # one that was tried again for long enough
                notice(error.detail)
                return UNAVAILABLE

    try:
        return with_client(arguments.url, work)
    except BrokenPipeError:
        raise
    except OSError as error:
        return unwritable(error)


class _Sending:
    """Sends messages one after another, and moves the cursor: only after a 2xx, so that nothing is passed over where
    the receiver refuses all, because its secret is another for instance."""

    def __init__(self, forwarder: "Forwarder", patience: Patience, kept: CursorFile | None) -> None:
        self._forwarder = forwarder
        self._patience = patience
        self._kept = kept
        self._stays = False
        self.refused = False  # one of them was

    async def send(self, message: "Message") -> bool:
        """Whether the receiver took it."""
        from notifier.client import NotifierClientError
        from notifier.client.forwarding import ReceiverError

        try:
            status = await self._forwarder.forward(message)
        except ReceiverError as error:
            if error.temporary:
                raise
            notice(f"{message.id} on {message.topic} was not delivered. {error.detail}")
            self._stays = self.refused = True
            return False
        except NotifierClientError as error:
            if error.code != "not_found":
                raise
            notice(f"gap: {message.id} on {message.topic} can no longer be delivered. {error.detail}")
            self.refused = True
            return False
        self._stays = False
        self._patience.heard()
        self._save(message.id)
        sys.stdout.write(f"{message.id} {message.topic} {status}\n")
        sys.stdout.flush()
        return True

    def passed(self, cursor: str) -> None:
        """Nothing else is to be sent up to there."""
        if not self._stays:
            self._save(cursor)

    def _save(self, cursor: str) -> None:
        if self._kept:
            self._kept.save(cursor)


async def _find(
    client: "Client", arguments: argparse.Namespace, patience: Patience
) -> AsyncIterator[tuple[str, "Message | None"]]:
    """The messages of the list that have the ids which are asked for."""
    for id_ in arguments.ids:
        found: list[Message] = []
        subscription = client.subscribe(
            arguments.topics,
            after=int(id_) - 1,
            once=True,
            limit=1,
            headers=True,
            on_gap=lambda _: None,
            on_retry=patience.retry,
        )
        async with aclosing(subscription.batches()) as batches:
            async for batch in batches:
                found = batch.messages
                if found or int(batch.cursor) >= int(id_):
                    break
        yield id_, next((message for message in found if message.id == id_), None)


def _headers(given: Sequence[str]) -> list[tuple[str, str]]:
    """As curl has it: `NAME: VALUE`, or `@FILE` with one a line, because all users of the machine can see arguments."""
    lines: list[str] = []
    for text in given:
        lines += Path(text[1:]).read_text(encoding="utf-8").splitlines() if text.startswith("@") else [text]
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("A header is NAME: VALUE, or @FILE with one a line.")
        headers.append((name.strip(), value.strip()))
    return headers
