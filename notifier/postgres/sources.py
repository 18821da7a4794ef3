"""Configured senders of webhooks, in the database."""

import asyncio

import asyncpg

from notifier.core.errors import InvalidSource, Unavailable
from notifier.core.webhooks import Source
from notifier.postgres.commands import command
from notifier.postgres.database import Connection
from notifier.postgres.history import SILENT_TEXT, History

SELECT = "select s.name, s.scheme, s.topic, s.secrets from notifier.source s"


async def add_source(url: str, source: Source) -> None:
    """InvalidSource when there is one of that name."""
    async with command(url, "source") as connection:
        added = await connection.fetchval(
            "insert into notifier.source (name, scheme, topic, secrets) values ($1, $2, $3, $4) "
            "on conflict do nothing returning name",
            source.name,
            source.scheme,
            source.topic,
            source.secrets,
        )
    if added is None:
        raise InvalidSource(f"A source {source.name} exists already; remove it first.")


async def list_sources(url: str) -> list[Source]:
    async with command(url, "source") as connection:
        return [_source(row) for row in await connection.fetch(f"{SELECT} order by s.name")]


async def remove_source(url: str, name: str) -> bool:
    """Whether there was one."""
    async with command(url, "source") as connection:
        return await connection.fetchval("delete from notifier.source where name = $1 returning name", name) is not None


# Senders wait for 10 s or less, and the message has yet to be committed.
FIND_S = 2.5
# Names that are asked for and not looked up yet, and how long those that come after a read wait for the next.
MAX_ASKED = 1000
PACE_S = 0.01


class Sources:
    """Finds sources by their names, as they are now. All that are asked for during one read are found by the next, so a
    flood of names costs one read at a time, and takes one place among the reads of `history`."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._known: set[str] = set()  # that were there when last asked for
        self._asked: dict[str, asyncio.Future[Source | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    def knows(self, name: str) -> bool:
        """Whether that source has been asked for before, and was there."""
        return name in self._known

    async def find(self, name: str) -> Source | None:
        """Unavailable while the database is away, or too many others are asked for."""
        found = self._asked.get(name)
        if found is None:
            if len(self._asked) >= MAX_ASKED:
                raise Unavailable("Too many different sources are asked for at the moment. Try again.")
            found = self._asked[name] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(FIND_S):
                source = await asyncio.shield(found)
        except TimeoutError as error:
            raise Unavailable(SILENT_TEXT) from error
        if source:
            self._known.add(name)
        else:
            self._known.discard(name)
        return source

    async def _read(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            names = sorted(asked)

            async def find(connection: Connection, names: list[str] = names) -> list[asyncpg.Record]:
                return await connection.fetch(f"{SELECT} where s.name = any ($1::text[])", names)

            try:
                rows = await self._history.shared(object(), find, asyncio.get_running_loop().time() + FIND_S)
            except Exception as error:  # noqa: BLE001 - it is of those that have asked
                for future in asked.values():
                    future.set_exception(error)
                    future.exception()  # retrieved, even if all have gone
            else:
                found = {row["name"]: _source(row) for row in rows}
                for name, future in asked.items():
                    future.set_result(found.get(name))
            finally:
                for future in asked.values():
                    future.cancel()
            await asyncio.sleep(PACE_S)


def _source(row: asyncpg.Record) -> Source:
    return Source(name=row["name"], scheme=row["scheme"], topic=row["topic"], secrets=tuple(row["secrets"]))
