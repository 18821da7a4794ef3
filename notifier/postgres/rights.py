"""What the role of the database URL may do, and what it would have to be granted."""

from notifier.postgres.connecting import Connection

# Functions of Postgres that every role may execute unless that was revoked, as hardened servers do.
_NEEDED = [
    *("pg_control_system", "pg_current_wal_lsn", "pg_walfile_name", "pg_logical_emit_message"),
    *("pg_notify", "pg_notification_queue_usage", "pg_postmaster_start_time", "pg_control_checkpoint"),
]
_LACKING = """
select string_agg(p.oid::regprocedure::text, ', ' order by p.proname) from pg_proc p
where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any ($1::text[])
    and not 'bytea'::regtype = any (p.proargtypes) and not has_function_privilege(p.oid, 'execute')
"""

# What a server uses in the schema, which its role need not own.
_NOT_GRANTED = """
select string_agg(p.name, ', ' order by p.n) || ' on ' || c.oid::regclass::text
from pg_class c cross join lateral unnest(case
    when c.relkind = 'S' then '{select,update}'
    when c.relname in ('migration', 'functions') then '{select}'
    else '{select,insert,update,delete}'
end::text[]) with ordinality p (name, n)
where c.relnamespace = 'notifier'::regnamespace and c.relkind in ('r', 'S') and not case
    when c.relkind = 'S' then has_sequence_privilege(c.oid, p.name) else has_table_privilege(c.oid, p.name)
end
group by c.oid
union all
select 'execute on ' || p.oid::regprocedure::text from pg_proc p
where p.pronamespace = 'notifier'::regnamespace and not has_function_privilege(p.oid, 'execute')
order by 1
"""

# Who has set it: the source is that of pg_settings.
_READ_ONLY = """
select case s.source when 'user' then 'role' when 'database' then 'database'
    when 'database user' then 'role in this database' else 'server' end
from pg_settings s where s.name = 'default_transaction_read_only' and s.setting = 'on'
"""

# So many are named.
MANY = 3


async def of_postgres(connection: Connection) -> str | None:
    """A sentence where a function of Postgres may not be executed: without one of them we could begin work that we
    cannot finish."""
    if lacking := await connection.fetchval(_LACKING, _NEEDED):
        return f"The role of this database URL may not execute {lacking}. A superuser must grant it EXECUTE on each."
    return None


async def to_serve(connection: Connection) -> str | None:
    """A sentence where the role lacks a right to serve, and so to publish, or may only read."""
    if lacks := await of_postgres(connection):
        return lacks
    role = await connection.fetchval("select quote_ident(current_user)")
    if missing := [row[0] for row in await connection.fetch(_NOT_GRANTED)]:
        more = f" and {len(missing) - MANY} more" if len(missing) > MANY else ""
        return (
            f"The role {role} lacks rights in the schema notifier: {'; '.join(missing[:MANY])}{more}. "
            f"As the owner of it: grant select, insert, update, delete on all tables in schema notifier to {role}; "
            f"grant select, update on all sequences in schema notifier to {role}; "
            f"grant execute on all routines in schema notifier to {role};"
        )
    if source := await connection.fetchval(_READ_ONLY):
        # Somebody means it: providers set it when a disk is full.
        return f"default_transaction_read_only is on for the {source}: the role {role} must be able to write."
    return None
