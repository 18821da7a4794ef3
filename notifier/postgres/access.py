"""Access as the database has it: keys, and the changes that each process follows.

A process remembers the last snapshot in which it has seen all changes. Whatever it reads of the log tells whether the
read's own snapshot shows a change that this one did not; then the changes are read and applied before anything of that
read is handed on. So no message that was published after the commit of a revocation reaches a grant that it ended, with
or without NOTIFY. Transactions commit in any order, which is why no number of a change could stand for the snapshot.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Any, NamedTuple

from notifier.core.errors import InvalidTopic
from notifier.core.topics import check_item
from notifier.postgres.database import Connection, Database

log = logging.getLogger(__name__)

# More changes than this at once are not applied one by one: everything is loaded anew.
MAX_CHANGES = 10_000

# Revoked subjects that are loaded, each some 200 bytes. What is older than the oldest of so many counts as revoked.
MAX_REVOKED = 50_000
# One subject may be revoked very often, by a user that logs in and out: so many are looked at.
MAX_REVOCATIONS = 200_000

NOW = "select pg_current_snapshot()::text as snapshot, (select max(e.start_seq) from notifier.epoch e) as epoch"

# The snapshot is that of the rows. One row without a kind: nothing has changed.
CHANGES = """
select pg_current_snapshot()::text as snapshot, (select max(e.start_seq) from notifier.epoch e) as epoch, c.*
from (select) here left join notifier.access_changes($1::text::pg_snapshot, $2) c on true
"""
UNSEEN = """
select notifier.access_unseen($1::text::pg_snapshot), (select max(e.start_seq) from notifier.epoch e)
"""

KEYS = """
select k.id, k.name, k.hash, k.publish, k.subscribe, k.admin, extract(epoch from k.expires_at)::float8 as until
from notifier.key k
"""
# At most $1 subjects among the newest $2 revocations, which an index has in order; the newest last. `before`: these are
# not all; there may have been others up to then.
REVOKED = """
with newest as materialized (
    select c.id, c.subject, extract(epoch from c.at)::float8 as at
    from notifier.access_change c where c.kind = 'revoked' order by c.id desc limit $2
)
select n.subject, n.at, case when seen.count = $2 then seen.since else 0 end as before
from (
    select n.subject, max(n.at) as at, max(n.id) as id from newest n group by n.subject order by 3 desc limit $1
) n, (select count(*), min(n.at) as since from newest n) seen
where n.at > extract(epoch from clock_timestamp() - $3::interval) order by n.id
"""


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """All changes of this snapshot (as Postgres writes it) have been applied, in this life of the database."""

    snapshot: str
    epoch: int


class Key(NamedTuple):
    """A key as callers need it. `until`: Unix seconds, or None."""

    id: str
    name: str
    hash: bytes
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    admin: bool
    until: float | None


class Changes(NamedTuple):
    """What has changed since the last.

    `keys`: all keys there are, or None where none has changed. `revoked`: subjects, and when (Unix seconds). With
    `revoked_before`, these are all that count, and everything up to then counts as revoked too. `changed`: subjects of
    which nothing that was remembered holds. `anew`: nothing at all that was remembered holds.
    """

    keys: Sequence[Key] | None = None
    revoked: Sequence[tuple[str, float]] = ()
    changed: frozenset[str] = frozenset()
    anew: bool = False
    revoked_before: float | None = None


class AccessLog:
    """Follows the changes for this process. `on_change` gets them, and applies them at once."""

    def __init__(self, lifetime: timedelta, on_change: Callable[[Changes], None]) -> None:
        """Revocations count for the longest `lifetime` of a token."""
        self._lifetime = lifetime
        self._on_change = on_change
        self._mark: Mark | None = None

    @property
    def known(self) -> str | None:
        """The snapshot of which all changes have been applied; None before the first."""
        return None if self._mark is None else self._mark.snapshot

    async def load(self, database: Database, connection: Connection) -> None:
        """Apply everything there is: notifications may have been missed, and changes of another life of the database.
        What was remembered holds on where this life is the one from before."""
        while True:
            mark = self._mark
            async with database.calls(connection):
                read = await self._read_all(connection, mark)
            if self._moved(mark, *read):
                return

    async def follow(self, database: Database, connection: Connection) -> None:
        """Apply all changes that can be seen by now."""
        while True:
            mark = self._mark
            async with database.calls(connection):
                read = await self._read(connection, mark) if mark else await self._read_all(connection, mark)
            if self._moved(mark, *read):
                return

    async def unseen(self, connection: Connection) -> bool:
        """Whether a snapshot shows what was not applied: that of the whole transaction, where it is a repeatable read;
        else a new one."""
        mark = self._mark
        if mark is None:
            return True
        [(unseen, epoch)] = await connection.fetch(UNSEEN, mark.snapshot)
        return bool(unseen) or epoch != mark.epoch

    def seen(self, known: str | None, snapshot: str) -> None:
        """Note that `snapshot`, a later one than `known`, shows nothing else: so the next look is as short."""
        if self._mark and self._mark.snapshot == known:
            self._mark = Mark(snapshot, self._mark.epoch)

    def _moved(self, since: Mark | None, mark: Mark, changes: Changes) -> bool:
        """Apply `changes`, unless others have been applied meanwhile, which may be newer."""
        if self._mark is not since:
            return False
        self._on_change(changes)
        self._mark = mark
        return True

    async def _read(self, connection: Connection, since: Mark) -> tuple[Mark, Changes]:
        rows = await connection.fetch(CHANGES, since.snapshot, MAX_CHANGES + 1)
        mark = Mark(rows[0]["snapshot"], rows[0]["epoch"])
        if mark.epoch != since.epoch or len(rows) > MAX_CHANGES:
            return await self._read_all(connection, None)
        return mark, _changes(rows, await _keys(connection) if any(row["kind"] == "key" for row in rows) else None)

    async def _read_all(self, connection: Connection, since: Mark | None) -> tuple[Mark, Changes]:
        changed: frozenset[str] = frozenset()
        anew = since is None
        # First of all: what comes later than this snapshot is seen again with the next changes, and does no harm.
        if since:
            rows = await connection.fetch(CHANGES, since.snapshot, MAX_CHANGES + 1)
            changed = _changes(rows, None).changed
            anew = rows[0]["epoch"] != since.epoch or len(rows) > MAX_CHANGES
        else:
            rows = await connection.fetch(NOW)
        mark = Mark(rows[0]["snapshot"], rows[0]["epoch"])
        keys = await _keys(connection)
        found = await connection.fetch(REVOKED, MAX_REVOKED, MAX_REVOCATIONS, self._lifetime)
        revoked = [(row["subject"], row["at"]) for row in found]
        before = found[0]["before"] if found else 0.0
        if len(revoked) == MAX_REVOKED:
            before = max(before, revoked[0][1])
        return mark, Changes(keys, revoked, changed, anew=anew, revoked_before=before)


def _changes(rows: Sequence[Any], keys: Sequence[Key] | None) -> Changes:
    return Changes(
        keys,
        [(row["subject"], row["at"]) for row in rows if row["kind"] == "revoked"],
        frozenset(row["subject"] for row in rows if row["kind"] == "changed"),
    )


async def _keys(connection: Connection) -> list[Key]:
    keys = []
    for key_id, name, digest, publish, subscribe, admin, until in await connection.fetch(KEYS):
        publish, subscribe = _patterns(name, publish), _patterns(name, subscribe)
        keys.append(Key(key_id, name, digest, publish, subscribe, admin, None if until == inf else until))
    return keys


def _patterns(name: str, given: Sequence[str | None]) -> tuple[str, ...]:
    """Those of the key `name`. A row may have been written by hand; what is not a pattern could match more than was
    meant, and so allows nothing."""
    found = []
    for item in given:
        try:
            found.append(check_item(item or ""))
        except InvalidTopic as error:
            log.warning("the key %r: what it may do is malformed, and left out. %s", name[:100], error)
    return tuple(found)
