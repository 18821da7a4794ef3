"""Keys in the database, and changes of access that services have seen."""

from collections.abc import Sequence

import asyncpg
from conftest import Running

from support.halting import eventually

SET = """
with gone as (delete from notifier.key where not name = any ($1::text[]))
insert into notifier.key (id, name, hash, publish, subscribe, admin, expires_at)
select substr(md5(n.name), 1, 12), n.name, sha256(n.name::bytea), $2::text[], $3::text[], $4, $5
from unnest($1::text[]) n (name)
on conflict (name) do update
set publish = excluded.publish, subscribe = excluded.subscribe, admin = excluded.admin, expires_at = excluded.expires_at
"""
SEEN = "select not notifier.access_unseen($1::text::pg_snapshot)"


async def set_keys(
    sql: asyncpg.Connection,
    *keys: str,
    publish: Sequence[str] = (),
    subscribe: Sequence[str] = (),
    admin: bool = False,
    expires_at: object = None,
) -> None:
    """These are all keys, and their names; they may do that."""
    await sql.execute(SET, keys, publish, subscribe, admin, expires_at)


async def seen(sql: asyncpg.Connection, *apps: Running) -> None:
    """Return when the services have seen what has changed by now."""
    for app in apps:
        await eventually(lambda app=app: sql.fetchval(SEEN, app.service.access.known))


class NoChanges:
    """In place of an AccessLog: no change is unseen."""

    async def unseen(self, _: asyncpg.Connection) -> bool:
        return False
