"""Configured senders of webhooks, in the database."""

import asyncio
import json
import logging
from dataclasses import replace
from datetime import timedelta

import asyncpg

from notifier.core.errors import InvalidSource, Unavailable
from notifier.core.idempotency import Once
from notifier.core.webhooks.sources import Source, check_source
from notifier.postgres.commands import command
from notifier.postgres.database import Connection
from notifier.postgres.history import SILENT_TEXT, History
from notifier.postgres.sealing import Seal

log = logging.getLogger(__name__)

UNSEALED = Seal()

# All secrets count until the older ones are retired.
SELECT = """
select s.name, s.scheme, s.topic, s.options::text as options, s.old_until,
    case when s.old_until <= clock_timestamp() then s.secrets[1:1] else s.secrets end as secrets
from notifier.source s
"""


async def add_source(url: str, source: Source, seal: Seal = UNSEALED) -> None:
    """InvalidSource when there is one of that name."""
    async with command(url, "source") as connection:
        added = await connection.fetchval(
            "insert into notifier.source (name, scheme, topic, secrets, options) values ($1, $2, $3, $4, $5) "
            "on conflict do nothing returning name",
            source.name,
            source.scheme,
            source.topic,
            [seal.close(source.name, secret) for secret in source.secrets],
            json.dumps(source.options),
        )
    if added is None:
        raise InvalidSource(f"A source {source.name} exists already; remove it first.")


async def list_sources(url: str) -> list[Source]:
    """All of them, with their secrets as they are stored."""
    async with command(url, "source") as connection:
        return [_source(row) for row in await connection.fetch(f"{SELECT} order by s.name")]


async def find_source(url: str, name: str, seal: Seal = UNSEALED) -> Source:
    """InvalidSource when there is none; Unavailable where its secrets cannot be opened."""
    async with command(url, "source") as connection:
        return await _find(connection, name, seal)


async def rotate_source(url: str, name: str, secret: str, keep: timedelta, seal: Seal = UNSEALED) -> Source:
    """Have the source use `secret`; the others count for as long as `keep`. InvalidSource when that cannot be."""
    async with command(url, "source") as connection:
        await connection.execute("select from notifier.source where name = $1 for update", name)
        source = await _find(connection, name, seal)
        older = [each for each in source.secrets if each != secret] if keep else []
        check_source(name, source.scheme, source.topic, [secret, *older], source.options)
        await connection.execute(
            "update notifier.source set secrets = $2, old_until = clock_timestamp() + $3::interval where name = $1",
            name,
            [seal.close(name, each) for each in (secret, *older)],
            keep,
        )
        return await _find(connection, name, seal)


async def _find(connection: Connection, name: str, seal: Seal) -> Source:
    row = await connection.fetchrow(f"{SELECT} where s.name = $1", name)
    if row is None:
        raise InvalidSource(f"There is no source {name[:63]!r}.")
    return _opened(_source(row), seal)


async def delivered(url: str, once: Once) -> int | None:
    """The id of the message that a webhook has become, in the days that it is known for."""
    async with command(url, "source") as connection:
        seq: int | None = await connection.fetchval("select seq from notifier.idempotency where key = $1", once.key)
        return seq


async def remove_source(url: str, name: str) -> bool:
    """Whether there was one."""
    async with command(url, "source") as connection:
        return await connection.fetchval("delete from notifier.source where name = $1 returning name", name) is not None


# Senders wait for 10 s or less, and the message has yet to be committed.
FIND_S = 2.5
# A source is taken from memory for this long: so late is a change of it noticed.
FRESH_S = 1.0
# And for this long while the database cannot tell: its table may be locked. Then no webhook waits long for it: Slack
# gives up after 3 s.
STALE_S = 60.0
PATIENCE_S = 0.5
# Names that are asked for and not looked up yet, and how long those that come after a read wait for the next.
MAX_ASKED = 1000
PACE_S = 0.01


class Sources:
    """Finds sources by their names. All that are asked for during one read are found by the next, so a flood of names
    costs one read at a time, and takes one place among the reads of `history`. Those that exist are remembered."""

    def __init__(self, history: History, seal: Seal) -> None:
        self._history = history
        self._seal = seal
        self._known: dict[str, tuple[Source, float]] = {}  # and when (loop time) it was asked for
        self._unusable: set[str] = set()  # those that are there, and cannot be used
        self._asked: dict[str, asyncio.Future[Source | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    def knows(self, name: str) -> bool:
        """Whether that source was there when it was last asked for."""
        return name in self._known

    async def current(self, name: str) -> Source | None:
        """The source, as it was at most FRESH_S ago; where the database does not tell, STALE_S. Unavailable where it is
        not known either."""
        held = self._known.get(name)
        now = asyncio.get_running_loop().time()
        if held and now - held[1] < FRESH_S:
            return held[0]
        try:
            return await self.find(name, PATIENCE_S if held else FIND_S)
        except Unavailable:
            if held and now - held[1] < STALE_S:
                return held[0]
            raise

    async def find(self, name: str, patience_s: float = FIND_S) -> Source | None:
        """The source, as it is now. Unavailable after `patience_s`, and while the database is away, or too many others
        are asked for."""
        found = self._asked.get(name)
        if found is None:
            if len(self._asked) >= MAX_ASKED:
                raise Unavailable("Too many different sources are asked for at the moment. Try again.")
            found = self._asked[name] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.shield(found)
        except TimeoutError as error:
            raise Unavailable(SILENT_TEXT) from error

    async def _read(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            names = sorted(asked)
            at = asyncio.get_running_loop().time()

            async def find(connection: Connection, names: list[str] = names) -> list[asyncpg.Record]:
                return await connection.fetch(f"{SELECT} where s.name = any ($1::text[])", names)

            try:
                rows = await self._history.shared(object(), find, asyncio.get_running_loop().time() + FIND_S)
            except Exception as error:  # noqa: BLE001 - it is of those that have asked
                for future in asked.values():
                    future.set_exception(error)
                    future.exception()  # retrieved, even if all have gone
            else:
                found = {row["name"]: row for row in rows}
                for name, future in asked.items():
                    self._tell(future, name, found.get(name), at)
            finally:
                for future in asked.values():
                    future.cancel()
            await asyncio.sleep(PACE_S)

    def _tell(self, future: asyncio.Future[Source | None], name: str, row: asyncpg.Record | None, at: float) -> None:
        source: Source | None = None
        try:
            if row is None:
                self._known.pop(name, None)
            else:
                source = _opened(_source(row), self._seal)
                self._known[name] = source, at
        except Unavailable as error:
            if name not in self._unusable:  # it is told once: anybody can have it looked up
                log.warning("the source %s cannot be used: %s", name, error)
            self._unusable.add(name)
            future.set_exception(error)
            future.exception()  # retrieved, even if all have gone
        else:
            self._unusable.discard(name)
            future.set_result(source)


def _opened(source: Source, seal: Seal) -> Source:
    return replace(source, secrets=tuple(seal.open(source.name, secret) for secret in source.secrets))


def _source(row: asyncpg.Record) -> Source:
    """Unavailable where the row is none that this version has written."""
    options = json.loads(row["options"])
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise Unavailable("The options of this source are not those of this version of notifier.")
    return Source(row["name"], row["scheme"], row["topic"], tuple(row["secrets"]), options, row["old_until"])
