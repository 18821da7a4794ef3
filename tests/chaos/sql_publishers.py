"""Publishers in SQL: in transactions of their own, long ones and such as are rolled back."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from chaos.ledger import Ledger, Message
from chaos.publishers import some_message
from chaos.recorder import Recorder
from chaos.topics import TOPICS

# A database that is away. Any other error in a user's statement is the service's.
AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is not promoted yet
    asyncpg.FeatureNotSupportedError,  # serializable on it
)


class SqlPublisher:
    """`url` says where the primary is."""

    def __init__(self, name: str, seed: str, url: str, recorder: Recorder, ledger: Ledger) -> None:
        self.name = name
        self.rng = random.Random(f"{seed} {name}")
        self.url = url
        self.recorder = recorder
        self.ledger = ledger
        self.ends = False
        self._connection: asyncpg.Connection | None = None

    async def run(self) -> None:
        try:
            while not self.ends:
                try:
                    await self._transaction(await self._connected())
                except AWAY:
                    self._hang_up()
                    await asyncio.sleep(self.rng.uniform(0.05, 0.3))
                await asyncio.sleep(self.rng.expovariate(2.5))
        finally:
            self._hang_up()

    async def _transaction(self, connection: asyncpg.Connection) -> None:
        rng = self.rng
        how = rng.choices(["commit", "roll back", "long", "malformed"], [75, 12, 5, 8])[0]
        messages: list[Message] = []
        later: list[Message] = []
        floor = self.ledger.told
        fate = "refused"  # as long as nobody has asked for the commit
        try:
            isolation = rng.choice(["read_committed", "repeatable_read", "serializable"])
            transaction = connection.transaction(isolation=isolation)
            await transaction.start()
            for _ in range(rng.choice([1, 1, 2, 5, 30])):
                if rng.random() < 0.1:
                    await self._publish_later(connection, later)
                else:
                    await self._publish(connection, messages)
                if how == "long":
                    await asyncio.sleep(rng.uniform(0.1, 0.6))
            if how == "malformed" and not await self._is_refused(connection):
                self.recorder.fault(f"{self.name}: what is malformed was taken")
            if how in {"roll back", "malformed"}:
                await transaction.rollback()
            else:
                fate = "unknown"
                await transaction.commit()
                fate = "committed"
        except asyncpg.PostgresError as error:
            if not isinstance(error, AWAY):
                fate = "refused"
                self._hang_up()
                self.recorder.fault(f"{self.name}: a user's transaction failed: {error!r}")
            raise
        finally:
            self.ledger.add("sql", messages, fate, floor)
            for message in later:
                self.ledger.add("sql, later", [message], fate, floor)

    async def _publish(self, connection: asyncpg.Connection, messages: list[Message]) -> None:
        message = some_message(self.rng, self.rng.choice(TOPICS), self.ledger.token())
        message.fields = {}
        messages.append(message)
        text = message.body.decode(errors="replace")
        if message.content_type is None:
            how = self.rng.choice(["text", "json", "jsonb", "row"])
            message.same_json = how == "jsonb"
            if how == "row":
                statement = "insert into notifier.outbox (topic, data, title) values ($1, $2::text::json, 'T')"
                message.fields = {"title": "T"}
            else:
                statement = f"select notifier.publish($1::text, $2::text::{how}, priority => 4)"
                message.fields = {"priority": 4}
            await connection.execute(statement, message.topic, text)
        elif message.content_type.startswith("text/"):
            await connection.execute("select notifier.publish_text($1, $2)", message.topic, text)
        else:
            await connection.execute("select notifier.publish_bytes($1, $2)", message.topic, message.body)

    async def _publish_later(self, connection: asyncpg.Connection, messages: list[Message]) -> None:
        """Some of it is due when the transaction ends, and some is taken back by it."""
        message = some_message(self.rng, self.rng.choice(TOPICS), self.ledger.token(), only_json=True)
        message.fields = {}
        message.not_before = datetime.now(UTC) + timedelta(seconds=self.rng.uniform(0, 2))
        text, at = message.body.decode(), message.not_before
        if self.rng.random() < 0.3:
            insert = "insert into notifier.scheduled (topic, data, at) values ($1, $2::text::json, $3) returning id"
            number = await connection.fetchval(insert, message.topic, text, at)
            if self.rng.random() < 0.5:
                await connection.execute("delete from notifier.scheduled where id = $1", number)
                self.ledger.add("sql, later and taken back", [message], "refused", 0)
                return
        else:
            await connection.execute(
                "select notifier.publish($1::text, $2::text, at => $3::timestamptz)", message.topic, text, at
            )
        messages.append(message)

    async def _is_refused(self, connection: asyncpg.Connection) -> bool:
        """What is malformed fails in the publisher's own statement."""
        topic, data = self.rng.choice([("a//b", "1"), ("", "1"), ("a", "{"), ("a", None), ("a/../b", "1")])
        savepoint: Any = connection.transaction()
        await savepoint.start()
        try:
            await connection.execute("select notifier.publish($1::text, $2::text)", topic, data)
        except (asyncpg.CheckViolationError, asyncpg.InvalidTextRepresentationError, asyncpg.NotNullViolationError):
            await savepoint.rollback()
            return True
        return False

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self.url, timeout=5, command_timeout=20, server_settings={"application_name": "chaos-publisher"}
            )
        return self._connection

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.terminate()
            self._connection = None
