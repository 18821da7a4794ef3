"""The schema of a database as lines of text, which can be compared."""

import asyncpg

# NOT NULL is a property of columns here: from Postgres 18 on it is a constraint too.
CATALOG = """
with ours as (select oid from pg_namespace where nspname = 'notifier')
select format('table %s %s', c.relname, c.reloptions) from pg_class c, ours
where c.relnamespace = ours.oid and c.relkind = 'r'
union all
select format('column %s.%s %s%s%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    ' collate ' || nullif(l.collname, 'default'), case when a.attnotnull then ' not null' end,
    ' default ' || pg_get_expr(d.adbin, d.adrelid), nullif(a.attidentity, ''), a.attstorage)
    || coalesce(replace(a.attacl::text, current_user, 'owner'), '')
from pg_attribute a join pg_class c on c.oid = a.attrelid join ours on c.relnamespace = ours.oid
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum left join pg_collation l on l.oid = a.attcollation
where c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
union all
select format('constraint %s.%s %s', r.conrelid::regclass, r.conname, pg_get_constraintdef(r.oid))
from pg_constraint r, ours where r.connamespace = ours.oid and r.contype not in ('n', 't')
union all
select pg_get_indexdef(i.indexrelid)
from pg_index i join pg_class c on c.oid = i.indrelid join ours on c.relnamespace = ours.oid
union all
select format('%s %s', pg_get_triggerdef(t.oid), t.tgenabled)
from pg_trigger t join pg_class c on c.oid = t.tgrelid join ours on c.relnamespace = ours.oid where not t.tgisinternal
union all
select format('sequence %s %s', s.seqrelid::regclass, s.seqcache)
from pg_sequence s join pg_class c on c.oid = s.seqrelid join ours on c.relnamespace = ours.oid
union all
select format('%s %s(%s) %s %s %s%s%s %s', case p.prokind when 'p' then 'procedure' else 'function' end, p.proname,
    pg_get_function_arguments(p.oid), 'returns ' || pg_get_function_result(p.oid), l.lanname, p.provolatile,
    case when p.proisstrict then ' strict' end, case when p.prosecdef then ' security definer' end, p.proconfig)
    || coalesce(replace(p.proacl::text, current_user, 'owner'), '')
from pg_proc p join pg_language l on l.oid = p.prolang, ours where p.pronamespace = ours.oid
"""

BODIES = "select prosrc, pg_get_function_sqlbody(oid) from pg_proc where pronamespace = 'notifier'::regnamespace"


async def catalog(sql: asyncpg.Connection) -> list[str]:
    await sql.execute("set search_path = pg_catalog")
    return sorted(" ".join(row[0].split()) for row in await sql.fetch(CATALOG))
