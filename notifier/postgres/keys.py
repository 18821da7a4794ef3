"""Keys in the database: making, listing, changing and revoking them. Servers learn of each change by its trigger."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from notifier.core.errors import InvalidKey
from notifier.core.keys import Rights
from notifier.postgres.commands import command
from notifier.postgres.database import Database

# Several processes write at the same time, and operators change keys: nobody waits, and nothing is written twice.
_MARK = """
update notifier.key k set used_at = date_trunc('minute', clock_timestamp())
from (
    select f.id from notifier.key f
    where f.id = any ($1::text[]) and (f.used_at is null or f.used_at < date_trunc('minute', clock_timestamp()))
    for no key update skip locked
) free where k.id = free.id
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored, but for its hash. Without `expires_at` it never expires; without `used_at` it has never
    been used."""

    id: str
    name: str
    rights: Rights
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


async def create_key(
    url: str, name: str, rights: Rights, key_id: str, key_hash: bytes, lifetime: timedelta | None
) -> Key:
    """Store a key, which expires after `lifetime` by the database's clock. InvalidKey when the name is taken."""
    async with command(url, "key") as connection:
        row = await connection.fetchrow(
            "insert into notifier.key (name, publish, subscribe, admin, id, hash, expires_at) "
            "values ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7::interval) "
            "on conflict (name) do nothing returning *",
            name,
            rights.publish,
            rights.subscribe,
            rights.admin,
            key_id,
            key_hash,
            lifetime,
        )
    if row is None:
        raise InvalidKey(f"There is a key {name} already. Revoke it first, or choose another name.")
    return _key(row)


async def list_keys(url: str) -> list[Key]:
    """All keys, expired ones too, by name."""
    async with command(url, "key") as connection:
        rows = await connection.fetch("select * from notifier.key order by name")
    return [_key(row) for row in rows]


async def change_key(url: str, name: str, rights: Rights) -> Key:
    """Give the key `name` these rights and no others. InvalidKey when there is none of that name."""
    async with command(url, "key") as connection:
        row = await connection.fetchrow(
            "update notifier.key set publish = $2, subscribe = $3, admin = $4 where name = $1 returning *",
            name,
            rights.publish,
            rights.subscribe,
            rights.admin,
        )
    if row is None:
        raise InvalidKey(_no_such(name))
    return _key(row)


async def revoke_key(url: str, name: str, key_id: str | None) -> Key:
    """Delete the key of that name, or else of that id. InvalidKey when there is neither."""
    async with command(url, "key") as connection:
        row = await connection.fetchrow(
            "delete from notifier.key where id = coalesce((select id from notifier.key where name = $1), $2) "
            "returning *",
            name,
            key_id,
        )
    if row is None:
        raise InvalidKey(_no_such(f"nk_{key_id}" if key_id else name))
    return _key(row)


async def mark_used(database: Database, key_ids: Collection[str]) -> None:
    """Note that the keys of these ids have been used in this minute. No server takes that for a change. UNAVAILABLE."""
    connection = await database.connect("keys", command_timeout_s=10)
    try:
        async with database.calls(connection):
            await connection.execute(_MARK, list(key_ids))
    finally:
        connection.terminate()


def _no_such(name: str) -> str:
    return f"There is no key {name}. `notifier key list` shows all keys."


def _key(row: asyncpg.Record) -> Key:
    rights = Rights(tuple(row["publish"]), tuple(row["subscribe"]), row["admin"])
    return Key(row["id"], row["name"], rights, row["created_at"], row["expires_at"], row["used_at"])
