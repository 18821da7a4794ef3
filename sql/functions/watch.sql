-- Row changes as messages: notifier.watch() puts triggers on a table, which note them in the transaction of the writer. The
-- pump makes the messages.
--
-- A watch is its triggers and nothing else: the template and the columns are their arguments. So a table that is dropped
-- takes its watch along, and `drop schema notifier cascade` leaves tables without triggers.

-- The functions that row_changed() and pump() call have no settings of their own: those have them.

-- The topic of a row, which is given as JSON (null: all values are missing). The template has braces in pairs. Each value
-- has an equal share of what the rest leaves of 255 characters at the most, and no slash: a name like 7/x would lead into
-- the topics of 7.
create or replace function notifier.row_topic(template text, fields json) returns text
language plpgsql immutable as $$
declare
    parts constant text[] := regexp_split_to_array(template, '[{}]');  -- text, column, text, ..., text
    topic text := parts[1];
    share int := 255 - length(template);
begin
    for i in 2..cardinality(parts) by 2 loop
        share := share + length(parts[i]) + 2;
    end loop;
    for i in 2..cardinality(parts) by 2 loop
        topic := topic || coalesce(nullif(left(
            regexp_replace(fields ->> parts[i], '[^A-Za-z0-9_.:@=+-]', '_', 'g'), share / (cardinality(parts) / 2)
        ), ''), '_') || parts[i + 1];
    end loop;
    if notifier.is_topic(topic) is not true then  -- null: braces without a partner
        topic := regexp_replace(topic, '(?<=^|/)[.][.]?(?=/|$)', '_', 'g');
        if notifier.is_topic(topic) is not true then
            raise exception '% is not a topic', quote_literal(topic);  -- the trigger was not made by watch()
        end if;
    end if;
    return topic;
end $$;

-- Whether every reader can read this JSON: is_readable_json() fails where not.
create or replace function notifier.can_be_read(data text) returns boolean language plpgsql immutable as $$
begin
    if not notifier.is_doubtful_json(data) then
        return true;
    end if;
    begin
        return notifier.check_json(data);
    exception when data_exception or program_limit_exceeded then
        return false;
    end;
end $$;

-- A row with only the columns of these names, or without them; null of null.
create or replace function notifier.some_columns(fields json, names text[], wanted boolean) returns json
language plpgsql immutable strict as $$
begin
    return '{' || coalesce((
        select string_agg(to_json(v.key)::text || ':' || v.value::text, ',') from json_each(fields) v
        where (v.key = any (names)) = wanted
    ), '') || '}';
end $$;

-- The same row, with text in the place of each value that some reader cannot read where it stands: two levels down.
create or replace function notifier.readable_row(fields json) returns json language plpgsql immutable strict as $$
begin
    return '{' || coalesce((
        select string_agg(to_json(v.key)::text || ':' || case
            when notifier.can_be_read('[[' || v.value::text || ']]') then v.value else to_json(v.value::text) end::text, ',')
        from json_each(fields) v
    ), '') || '}';
end $$;

-- A message that every reader can read and the outbox takes, whatever the row holds. Where it would be too large, values
-- of more than 4 kB are left out, and named: 1600 columns of 4 kB, twice, are not too large.
create or replace function notifier.row_message(op text, new_row json, old_row json) returns text
language plpgsql immutable as $$
declare
    message text;
    omitted text[];
begin
    for attempt in 1..2 loop
        if coalesce(octet_length(new_row::text), 0) + coalesce(octet_length(old_row::text), 0) > 16000000 then
            omitted := omitted || array(
                select v.key from json_each(new_row) v where octet_length(v.value::text) > 4096
                union select v.key from json_each(old_row) v where octet_length(v.value::text) > 4096
                order by 1
            );
            new_row := notifier.some_columns(new_row, omitted, false);
            old_row := notifier.some_columns(old_row, omitted, false);
        end if;
        message := concat('{"op": "', op, '"', ', "new": ' || new_row::text, ', "old": ' || old_row::text,
            ', "omitted": ' || to_json(omitted)::text, '}');
        if notifier.can_be_read(message) then
            return message;
        end if;
        new_row := notifier.readable_row(new_row);
        old_row := notifier.readable_row(old_row);
    end loop;
    raise exception 'some reader cannot read it';
end $$;

-- What to publish of a row that was inserted (old_row is null), deleted (new_row is null) or updated. shown: the columns
-- that are shown; empty: all. Whatever is given, it does not fail: the pump would never get on. What cannot be told (which
-- watch() and its triggers do not bring about) is a message without its values, and a warning in the log of Postgres.
create or replace function notifier.row_messages(
    template text, shown text[], new_row json, old_row json, out topic text, out data text
) returns setof record language plpgsql immutable rows 1 as $$
declare
    old_topic text;
    op constant text := case when old_row is null then 'insert' when new_row is null then 'delete' else 'update' end;
begin
    -- As watch() has them: at most 255 values, each of a column's name and braces. More could take longer than a pump may.
    if length(template) > 255 * 66 or length(template) - length(replace(template, '{', '')) > 255 or cardinality(shown) > 1600 then
        raise exception 'the trigger was not made by notifier.watch()';
    end if;
    if new_row is not null then
        topic := notifier.row_topic(template, new_row);
    end if;
    if old_row is not null then
        old_topic := notifier.row_topic(template, old_row);
    end if;
    if cardinality(shown) > 0 then
        new_row := notifier.some_columns(new_row, shown, true);
        old_row := notifier.some_columns(old_row, shown, true);
    end if;
    if topic = old_topic then
        if new_row::text <> old_row::text then
            data := notifier.row_message('update', new_row, old_row);
            return next;
        end if;
        return;
    end if;
    -- A row that comes to another topic is gone from the one that it was in. Who may see one need not be allowed to see
    -- the other, and so neither has both rows.
    if new_row is not null then
        data := notifier.row_message('insert', new_row, null);
        return next;
    end if;
    if old_row is not null then
        topic := old_topic;
        data := notifier.row_message('delete', null, old_row);
        return next;
    end if;
exception when others then
    raise warning 'notifier: a change of a row that is watched as % cannot be told: %', quote_literal(template), sqlerrm;
    topic := coalesce(nullif(btrim(left(regexp_replace(
        regexp_replace(template, '[^A-Za-z0-9_:@=+/-]', '_', 'g'), '/{2,}', '/', 'g'
    ), 255), '/'), ''), '_');
    data := json_build_object('op', op, 'omitted', array(
        select k.key from json_object_keys(case when json_typeof(coalesce(new_row, old_row)) = 'object'
            then coalesce(new_row, old_row) else '{}' end) k (key) where cardinality(shown) = 0 or k.key = any (shown)
    ));
    return next;
end $$;

-- JSON, or its text where a string in it would end Postgres's own functions. (jsonb holds no such.)
create or replace function notifier.json_value(value json) returns json language plpgsql immutable as $$
begin
    if value::text ~ E'\\\\u(0000|[dD][89a-fA-F])' then  -- also where backslashes in strings are escapes
        return to_json(value::text);
    end if;
    return value;
end $$;

create or replace function notifier.base_type(type oid) returns oid language plpgsql stable as $$
declare
    base oid;
begin
    select t.typbasetype into base from pg_type t where t.oid = type and t.typtype = 'd';
    return case when base is null then type else notifier.base_type(base) end;
end $$;

-- What to select of the rows r of a table, to be made JSON. A type of a user's may have a cast to JSON, a function of that
-- user's, which would be called with our rights: so all types that are not built in are given as text. Triggers do not
-- see virtual generated columns.
create or replace function notifier.row_columns(relation oid) returns text language plpgsql stable as $$
begin
    return (
        select string_agg(format(case
                when c.type in ('json'::regtype, 'json[]'::regtype) then 'notifier.json_value(to_json(r.%1$I)) as %1$I'
                when c.type < 16384 then 'r.%1$I'
                when (select t.typsubscript from pg_type t where t.oid = c.type) = 'array_subscript_handler'::regproc then
                    'case when r.%1$I is distinct from null then array('
                    'select case when element is distinct from null then concat(element) end from unnest(r.%1$I) element) end as %1$I'
                else 'case when r.%1$I is distinct from null then concat(r.%1$I) end as %1$I'
            end, c.name), ', ' order by c.num)
        from (
            select a.attnum as num, a.attname as name,
                case when a.atttypid < 16384 then a.atttypid else notifier.base_type(a.atttypid) end as type
            from pg_attribute a
            where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
            offset 0  -- so that each type is looked up once
        ) c
    );
end $$;

-- Whether the pump makes the message of a row. What is large is made one in the time of the writer, and not in that of all
-- others. (In SQL, as the next one.)
create or replace function notifier.is_small(new_row json, old_row json) returns boolean language sql immutable
return coalesce(octet_length(new_row::text), 0) + coalesce(octet_length(old_row::text), 0) < 1000000;

-- One row where all types of a table are built in, and all columns are seen by triggers; else none. (In SQL, to become a
-- part of the statement that asks.)
create or replace function notifier.built_in(relation oid) returns table (is_so boolean) language sql stable rows 1 as $$
    select true where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
            and (a.atttypid >= 16384 or a.atttypid in (114, 199) or a.attgenerated = 'v')  -- json, json[]
    )
$$;

-- Of tables that are watched: publishes what a statement has changed. Its arguments are the template of the topic and,
-- where not all are shown, the names of columns; those that are not there any more count as null.
--
-- It runs in the transactions of those who write to the table, and may have no rights here, with our rights. So all that
-- it calls is ours or Postgres's own, and what it makes of a row depends on no setting of a session.
--
-- Most statements change one row, and each part of this costs them: in each transaction, Postgres prepares each expression
-- anew. So for a table whose types are all built in, one statement that is planned once does it all, and what a message
-- is made of is left to the pump. The other ways are planned each time.
create or replace function notifier.row_changed() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    news bigint := 0;
    olds bigint := 0;
    total bigint;
    noted bigint;
    new_row json;
    old_row json;
    columns text;
    new_rows text;
    old_rows text;
    changes text;
begin
    if tg_op = 'TRUNCATE' then
        insert into notifier.outbox (topic, data) values (
            notifier.row_topic(tg_argv[0], null),
            json_build_object('op', 'truncate', 'table', format('%I.%I', tg_table_schema, tg_table_name))
        );
        return null;
    end if;
    -- In a trigger that watch() has not made, they may be temporary views, and so functions, of a user's.
    if to_regclass('notifier_old') is not null or to_regclass('notifier_new') is not null then
        raise exception 'notifier_old and notifier_new must not be relations' using errcode = 'duplicate_table';
    end if;
    -- No name of a column may be taken for one of ours: columns are named with their table only.
    if tg_op = 'UPDATE' then
        insert into notifier.change (topic, shown, new_row, old_row)
            select tg_argv[0], tg_argv[1:], r.new_row, r.old_row from (
                select row_to_json(n.*) as new_row, (select row_to_json(o.*) from notifier_old o limit 1) as old_row
                from notifier_new n, notifier.built_in(tg_relid)
                where not exists (select from notifier_new offset 1) and not exists (select from notifier_old offset 1)
                offset 0
            ) r where notifier.is_small(r.new_row, r.old_row);
    elsif tg_op = 'INSERT' then
        insert into notifier.change (topic, shown, new_row)
            select tg_argv[0], tg_argv[1:], r.new_row from (
                select row_to_json(n.*) as new_row from notifier_new n, notifier.built_in(tg_relid)
                where not exists (select from notifier_new offset 1) offset 0
            ) r where notifier.is_small(r.new_row, null);
    else
        insert into notifier.change (topic, shown, old_row)
            select tg_argv[0], tg_argv[1:], r.old_row from (
                select row_to_json(o.*) as old_row from notifier_old o, notifier.built_in(tg_relid)
                where not exists (select from notifier_old offset 1) offset 0
            ) r where notifier.is_small(null, r.old_row);
    end if;
    if found then
        return null;
    end if;
    if tg_op <> 'DELETE' then
        news := (select count(*) from notifier_new);
    end if;
    if tg_op <> 'INSERT' then
        olds := (select count(*) from notifier_old);
    end if;
    -- The n-th row of both is the same one: Postgres adds to both at once. But a row that is moved to another partition is
    -- only gone where a trigger there does not let it in.
    total := case when news = olds then news else news + olds end;
    if total = 0 then
        return null;
    end if;
    columns := notifier.row_columns(tg_relid);
    if total = 1 then
        -- To plan this takes a quarter of what it takes to plan the whole.
        if news > 0 then
            execute format('select row_to_json(c.*) from (select %s from notifier_new r) c', columns) into new_row;
        end if;
        if olds > 0 then
            execute format('select row_to_json(c.*) from (select %s from notifier_old r) c', columns) into old_row;
        end if;
        if notifier.is_small(new_row, old_row) then
            insert into notifier.change (topic, shown, new_row, old_row) values (tg_argv[0], tg_argv[1:], new_row, old_row);
        else
            insert into notifier.outbox (topic, data)
                select m.topic, m.data::json from notifier.row_messages(tg_argv[0], tg_argv[1:], new_row, old_row) m;
        end if;
        return null;
    end if;
    new_rows := format('select row_to_json(c.*) as fields, row_number() over () as i from (select %s from notifier_new r) c', columns);
    old_rows := format('select row_to_json(c.*) as fields, row_number() over () as i from (select %s from notifier_old r) c', columns);
    changes := case
        when olds = 0 then format('select n.fields as new_row, null::json as old_row, n.i from (%s) n', new_rows)
        when news = 0 then format('select null::json as new_row, o.fields as old_row, o.i from (%s) o', old_rows)
        when news = olds then format(
            'select n.fields as new_row, o.fields as old_row, i from (%s) n full join (%s) o using (i)', new_rows, old_rows)
        else format(
            'select null::json as new_row, o.fields as old_row, o.i - %s as i from (%s) o '
            'union all select n.fields, null, n.i from (%s) n', olds, old_rows, new_rows)
        end;
    execute format(
        'insert into notifier.change (topic, shown, new_row, old_row) select $1, $2, c.new_row, c.old_row from (%s) c '
        'where notifier.is_small(c.new_row, c.old_row) order by c.i', changes
    ) using tg_argv[0], tg_argv[1:];
    get diagnostics noted = row_count;
    if noted < total then
        execute format(
            'insert into notifier.outbox (topic, data) select m.topic, m.data::json from (%s) c '
            'cross join lateral notifier.row_messages($1, $2, c.new_row, c.old_row) m '
            'where not notifier.is_small(c.new_row, c.old_row) order by c.i', changes
        ) using tg_argv[0], tg_argv[1:];
    end if;
    return null;
end $$;

-- Publishes each change of a row of this table, from the commit on: {"op": "insert", "update" or "delete", "new", "old"}.
-- The topic is a template: orders/{id}. columns: those that are shown; null: all. Called again, it replaces what it was
-- told before under the same name.
create or replace function notifier.watch(
    relation regclass, topic text, columns text[] default null, name text default 'changes'
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    found_relation pg_class;
    wrong text;
    called text;
    target regclass;
    event text;
    trigger_name text;
begin
    select * into found_relation from pg_class c where c.oid = relation;
    if not found or topic is null then
        raise exception 'notifier.watch() needs a table and the topic of its changes' using errcode = 'null_value_not_allowed';
    elsif found_relation.relkind not in ('r', 'p') then
        raise exception '% is not a table, and only tables can be watched', relation using errcode = 'wrong_object_type';
    elsif found_relation.relnamespace = 'notifier'::regnamespace then
        raise exception '% belongs to notifier, and cannot be watched', relation using errcode = 'wrong_object_type';
    elsif not pg_has_role(found_relation.relowner, 'usage') then
        raise exception '% can be watched by its owner only, which is %', relation, found_relation.relowner::regrole
            using errcode = 'insufficient_privilege';
    elsif exists (select from pg_partition_tree(relation) p join pg_class c on c.oid = p.relid where c.relkind = 'f') then
        raise exception '% has partitions that are foreign tables, and cannot be watched', relation
            using errcode = 'wrong_object_type';
    elsif topic !~ '^([^{}]|\{[^{}]+\})*$' then
        raise exception 'the topic % is malformed: braces hold the name of a column, as in orders/{id}', quote_literal(topic)
            using errcode = 'invalid_parameter_value';
    elsif not notifier.is_topic(regexp_replace(topic, '\{[^{}]+\}', '_', 'g')) then
        raise exception 'the topic % is malformed: with a value in each pair of braces, it must be a topic', quote_literal(topic)
            using errcode = 'invalid_parameter_value',
            detail = 'A topic has 1 to 255 characters: segments of A-Z a-z 0-9 _ . : @ = + -, separated by /.';
    elsif cardinality(columns) = 0 or array_position(columns, null) is not null then
        raise exception 'columns names those that are shown: at least one' using errcode = 'invalid_parameter_value';
    elsif coalesce(name !~ '^[a-z0-9_]{1,40}$', true) then
        raise exception 'the name of a watch has 1 to 40 of the characters a-z 0-9 _' using errcode = 'invalid_parameter_value';
    end if;
    select format('%s has no column %s', relation, quote_ident(n.name)) into wrong
        from (select m[1] from regexp_matches(topic, '\{([^{}]+)\}', 'g') m union all select unnest(columns)) n (name)
        where not exists (
            select from pg_attribute a where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
                and a.attname = n.name and a.attgenerated <> 'v'
        ) limit 1;
    if wrong is not null then
        raise exception '% that a trigger sees', wrong using errcode = 'undefined_column', hint = (
            select 'It has ' || string_agg(quote_ident(a.attname), ', ' order by a.attnum) || '.' from pg_attribute a
            where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
        );
    end if;
    called := (
        select string_agg(quote_literal(a.value), ', ' order by a.n)
        from unnest(topic || columns) with ordinality a (value, n)
    );
    -- A statement that names a partition fires the triggers of that partition only.
    for target in select relation union all select p.relid from pg_partition_tree(relation) p where p.relid <> relation loop
        foreach event in array '{insert,update,delete,truncate}'::text[] loop
            trigger_name := format('notifier_%s_%s', name, event);
            if exists (
                select from pg_trigger t where t.tgrelid = target and t.tgname = trigger_name
                    and t.tgfoid <> 'notifier.row_changed'::regproc
            ) then
                raise exception '% has a trigger % of another kind', target, trigger_name using errcode = 'duplicate_object';
            end if;
            execute format(
                'create or replace trigger %I after %s on %s%s for each statement execute function notifier.row_changed(%s)',
                trigger_name, event, target, case event
                    when 'insert' then ' referencing new table as notifier_new'
                    when 'update' then ' referencing old table as notifier_old new table as notifier_new'
                    when 'delete' then ' referencing old table as notifier_old'
                    else '' end, called
            );
        end loop;
    end loop;
end $$;

-- Ends what watch() has begun under this name, or all of it (null), for the table and its partitions.
create or replace function notifier.unwatch(relation regclass, name text default null) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    ours record;
begin
    for ours in
        select t.tgname, t.tgrelid::regclass as target from pg_trigger t
        where t.tgfoid = 'notifier.row_changed'::regproc
            and (t.tgrelid = relation or t.tgrelid in (select p.relid from pg_partition_tree(relation) p))
            and (unwatch.name is null or t.tgname ~ ('^notifier_' || unwatch.name || '_(insert|update|delete|truncate)$'))
    loop
        execute format('drop trigger %I on %s', ours.tgname, ours.target);
    end loop;
end $$;

revoke execute on function
    notifier.row_topic, notifier.can_be_read, notifier.some_columns, notifier.readable_row, notifier.row_message,
    notifier.row_messages, notifier.json_value, notifier.base_type, notifier.row_columns, notifier.is_small, notifier.built_in
from public;
-- Those who have usage on the schema may publish, and a trigger of theirs may too.
grant execute on function notifier.row_changed, notifier.watch, notifier.unwatch to public;
