-- The outbox: what enters it is checked here, and the pump takes it from there into the log.

-- The checks are in PL/pgSQL, which keeps its plans: a function in SQL is planned anew for each statement that inserts,
-- even where it is not called. Those that each insert calls have no settings of their own, which would take longer than
-- they do, and so nothing in them may be looked up by the search_path of the user.
create or replace function notifier.is_topic(name text) returns boolean language plpgsql immutable parallel safe strict as $$
begin
    return pg_catalog.length(name) operator(pg_catalog.<=) 255
        and name operator(pg_catalog.~) '^[A-Za-z0-9_.:@=+-]+(/[A-Za-z0-9_.:@=+-]+)*$' collate pg_catalog."C"
        and name operator(pg_catalog.!~) '(^|/)[.][.]?(/|$)' collate pg_catalog."C";
end $$;

-- As core/messages.py has it.
create or replace function notifier.is_content_type(content_type text) returns boolean
language plpgsql immutable parallel safe strict as $$
begin
    return pg_catalog.length(content_type) operator(pg_catalog.<=) 255
        and content_type operator(pg_catalog.~)
            E'^[!#$%&\'*+.^_`|~0-9A-Za-z-]+/[!#$%&\'*+.^_`|~0-9A-Za-z-]+'
            '( *;( *[!#$%&\'*+.^_`|~0-9A-Za-z-]+=([!#$%&\'*+.^_`|~0-9A-Za-z-]+|"([]^-~ !#-+.-[-]|\\\\[- -+.-~])*"))?)*$'
            collate pg_catalog."C";
end $$;

create or replace function notifier.are_tags(tags text[]) returns boolean language plpgsql immutable parallel safe strict
set search_path = pg_catalog, pg_temp as $$
begin
    return cardinality(tags) between 1 and 32
        and array_position(tags, null) is null
        and not exists (select from unnest(tags) tag where length(tag) not between 1 and 100);
end $$;

-- What every reader of JSON can read, as core/strict_json.py has it: no escaped surrogate without its partner, numbers
-- that are finite as a double and have at most 400 digits, at most 60 levels. Fails (like a cast) with a sentence that
-- says what is wrong. It takes some time and memory; is_readable_json() calls it only where there is reason to.
create or replace function notifier.check_json(data text) returns boolean language plpgsql immutable strict
set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    tree jsonb;
begin
    if data ~ '[0-9]{100}' and exists (
        select from regexp_matches(
            regexp_replace(data, '"(?:[^"\\]|\\.)*"', '', 'g'), '[0-9][0-9.eE+-]{99,}', 'g'
        ) as found (number)
        where length(translate(found.number[1], '.eE+-', '')) > 400
    ) then
        raise exception 'a number of this JSON has more than 400 digits' using errcode = 'invalid_text_representation';
    end if;
    -- jsonb knows surrogates. It does not have two things that every reader can read: a NUL, and what is next to nothing.
    tree := regexp_replace(replace(data, '\u0000', '\u0001'), '[eE]-[0-9]{3,}', 'e-9', 'g')::jsonb;
    -- From halfway above the largest double on, a number is read as infinite.
    if jsonb_path_exists(tree, 'strict $.** ? (@ >= 1.797693134862315807937e308 || @ <= -1.797693134862315807937e308)') then
        raise exception 'a number of this JSON is too large for a double' using errcode = 'invalid_text_representation';
    end if;
    if jsonb_path_exists(tree, 'strict $.**{60} ? (@.type() == "array" || @.type() == "object")') then
        raise exception 'this JSON is nested too deeply: at most 60 levels' using errcode = 'invalid_text_representation';
    end if;
    return true;
exception when numeric_value_out_of_range then
    raise exception 'a number of this JSON is too large for a double' using errcode = 'invalid_text_representation';
end $$;

create or replace function notifier.is_readable_json(data text) returns boolean language plpgsql immutable strict as $$
begin
    if data operator(pg_catalog.~) E'\\\\u[dD][89a-fA-F]|[eE][+]?[0-9]{3}' collate pg_catalog."C"
        -- Without such an exponent, 210 digits are needed, or 61 brackets.
        or pg_catalog.octet_length(data) operator(pg_catalog.>) 120 and (
            data operator(pg_catalog.~) '[0-9]{100}' collate pg_catalog."C"
            or 2 operator(pg_catalog.*) pg_catalog.octet_length(data)
                operator(pg_catalog.-) pg_catalog.octet_length(pg_catalog.replace(data, '[', ''))
                operator(pg_catalog.-) pg_catalog.octet_length(pg_catalog.replace(data, '{', ''))
                operator(pg_catalog.>) 60
        )
    then
        return notifier.check_json(data);
    end if;
    return true;
end $$;

create or replace function notifier.is_json(body bytea) returns boolean language plpgsql immutable strict
set search_path = pg_catalog, pg_temp as $$
begin
    return convert_from(body, 'UTF8')::json is not null and notifier.is_readable_json(convert_from(body, 'UTF8'));
end $$;

create or replace function notifier.is_json_type(content_type text) returns boolean
language plpgsql immutable parallel safe strict
set search_path = pg_catalog, pg_temp as $$
begin
    -- By the bytes: in Turkish the small letter of I is another one.
    return lower(btrim(split_part(content_type, ';', 1)) collate "C") ~ '(^application/json|[+]json)$' collate "C";
end $$;

-- Whether the notification queue has room. It belongs to the whole cluster; a program that listens and does not read
-- fills it, and then every transaction that notifies fails at its commit, too late to be caught.
create or replace function notifier.may_notify() returns boolean language sql volatile
return pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.25;

-- A transaction has its number before it draws an id, and so can be seen to run by a pump that comes to that id. Without
-- this it gets the number with its first row, and to make that row's data may take any time.
create or replace function notifier.outbox_begin() returns trigger language plpgsql as $$
begin
    perform pg_catalog.pg_current_xact_id();
    return null;
end $$;

-- NOTIFY takes a lock of the whole cluster from before the commit's flush until after it, so one in each transaction
-- means one commit at a time. The try-lock lets one of the transactions that commit together notify for all; the pump
-- looks again a few times after each wake because a loser may become visible just after the winner. It is called at the
-- commit, because a lock taken inside a long transaction would mute all others until its end. Where the owner of such a
-- transaction wants it earlier (set constraints all immediate), there is a second lock.
--
-- It runs in the transactions of users, with our rights, because the locks are ours: so nothing in it may be looked up by
-- their search_path.
--
-- It is called for each row, and to lose the locks takes longer than to insert one. So it tries after the first row, and
-- again after twice as many; once it has notified, no more in this transaction.
create or replace function notifier.outbox_wake() returns trigger language plpgsql security definer as $$
declare
    given text := pg_catalog.current_setting('notifier.rows', true);  -- those of this transaction before; -1: it has notified
    number int := 1;
begin
    if given operator(pg_catalog.<>) '' then
        number := given::int operator(pg_catalog.+) 1;
    end if;
    if number operator(pg_catalog.=) 0 then
        return null;
    end if;
    perform pg_catalog.set_config('notifier.rows', number::text, true);
    if number operator(pg_catalog.&) (number operator(pg_catalog.-) 1) operator(pg_catalog.<>) 0
        or not notifier.may_notify()
    then
        return null;
    end if;
    if pg_catalog.current_setting('exit_on_error') operator(pg_catalog.=) 'on' then
        perform pg_catalog.set_config('exit_on_error', 'off', true);  -- or to lose a lock would end the session
    end if;
    -- From here on it notifies if it gets a lock, and so no transaction that is prepared, and stays, can hold one.
    begin
        lock table notifier.wake_lock in share update exclusive mode nowait;
    exception when lock_not_available then
        begin
            lock table notifier.wake_lock_2 in share update exclusive mode nowait;
        exception when lock_not_available then
            return null;
        end;
    end;
    perform pg_catalog.set_config('notifier.rows', '-1', true);
    perform pg_catalog.pg_notify('notifier_outbox', '');
    return null;
end $$;

-- For publishers in SQL. They return nothing: the id comes after the commit.
create or replace function notifier.publish(
    topic text, data json, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, data, title, click, priority, tags)
    values (topic, data, title, click, priority, tags);
end;

create or replace function notifier.publish(
    topic text, data jsonb, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, data, title, click, priority, tags)
    values (topic, data::json, title, click, priority, tags);
end;

create or replace function notifier.publish(
    topic text, data text, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, data, title, click, priority, tags)
    values (topic, data::json, title, click, priority, tags);
end;

create or replace function notifier.publish_text(
    topic text, data text, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, body, content_type, title, click, priority, tags)
    values (topic, convert_to(data, 'UTF8'), 'text/plain; charset=utf-8', title, click, priority, tags);
end;

create or replace function notifier.publish_bytes(
    topic text, data bytea, content_type text default 'application/octet-stream',
    title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, body, content_type, title, click, priority, tags)
    values (topic, data, content_type, title, click, priority, tags);
end;

-- Moves the oldest rows from the outbox to the log, up to max_rows and about max_bytes, without waiting for the disk:
-- flush() afterwards, and notify no one before that.
--
-- It reads above after_id, or above the lowest mark of the transactions that were running (with numbers from first_xids
-- to before last_xids) and have ended; at most max_ids ids, because an old snapshot elsewhere keeps dead rows that have to
-- be skipped.
--
-- moved: how many; null while another server pumps. last_seq: the seq of the last of them. reached: up to this id
-- everything has been moved, except what the transactions that are running now may bring: those whose numbers are in
-- running, and those from ended_xid to before next_xid. head: the newest id when it began. quiet: notifications are off
-- at the moment.
create or replace function notifier.pump(
    after_id bigint, max_ids bigint, first_xids bigint[], last_xids bigint[], marks bigint[],
    max_rows int, max_bytes bigint, seen bigint default 0,
    out moved int, out last_seq bigint, out reached bigint, out head bigint,
    out running bigint[], out ended_xid bigint, out next_xid bigint, out quiet boolean
) language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    now_running pg_snapshot;
    from_id bigint;
    to_id bigint;
    ids bigint[];
    looked_at int;
    topics text[];
    bodies bytea[];
    content_types text[];
    all_fields text[];
begin
    quiet := not notifier.may_notify();
    begin
        lock table notifier.pump_lock in share update exclusive mode nowait;
    exception when lock_not_available then
        return;
    end;
    perform set_config('synchronous_commit', 'off', true);
    moved := 0;
    -- In this order: a transaction that has drawn an id up to head is running (outbox_begin() sees to that; where
    -- triggers are off, it is about to be seen so, see AGED_S in pump.py), or has ended, and then its rows are seen.
    select case when s.is_called then s.last_value else 0 end into head from notifier.outbox_id_seq s;
    next_xid := 3::bigint + age('3'::xid);  -- the low half of it
    now_running := pg_current_snapshot();
    running := array(select x::text::bigint from pg_snapshot_xip(now_running) x);
    -- A snapshot does not list what runs with a higher number than everything that has ended.
    ended_xid := pg_snapshot_xmax(now_running)::text::bigint;
    next_xid := (next_xid - ended_xid) & 4294967295;
    next_xid := ended_xid + case when next_xid < 2147483648 then next_xid else 0 end;
    select least(after_id, min(m.mark)) into from_id from unnest(first_xids, last_xids, marks) m (first, last, mark)
        where least(m.last, ended_xid) - m.first
            > (select count(*) from unnest(running) x where x >= m.first and x < m.last);
    to_id := case when from_id >= head - max_ids then 9223372036854775807 else from_id + max_ids end;
    -- Looked up before append() takes the order lock: this can be slow, and must not hold up HTTP publishers.
    select array_agg(sized.id order by sized.id) filter (where sized.total - sized.size < max_bytes), count(*)
    into ids, looked_at from (
        select o.id, o.size, sum(o.size) over (order by o.id) as total
        from (
            -- An insert from another table may bring a value that is compressed: at most 256 times.
            select i.id, coalesce(octet_length(i.body), pg_column_size(i.data)::bigint
                * case when pg_column_compression(i.data) is null then 1 else 256 end) as size
            from notifier.outbox i where i.id > from_id and i.id <= to_id order by i.id limit max_rows
        ) o
    ) sized;
    if looked_at = max_rows or cardinality(ids) < looked_at then
        to_id := ids[cardinality(ids)];
    end if;
    reached := least(to_id, head);
    if looked_at = 0 then
        return;
    end if;
    with gone as (
        delete from notifier.outbox i where i.id = any (ids)
        returning i.id, i.topic, coalesce(i.body, convert_to(i.data::text, 'UTF8')) as body,
            case when lower(btrim(split_part(i.content_type, ';', 1)) collate "C") <> 'application/json' then i.content_type end as content_type,
            nullif(jsonb_strip_nulls(jsonb_build_object(
                'title', i.title, 'click', i.click, 'priority', i.priority, 'tags', i.tags
            )), '{}')::text as fields
    )
    select count(*), array_agg(g.topic order by g.id), array_agg(g.body order by g.id),
        array_agg(g.content_type order by g.id), array_agg(g.fields order by g.id)
    into moved, topics, bodies, content_types, all_fields
    from gone g;
    select a.first_seq + moved - 1 into last_seq
        from notifier.append(topics, bodies, content_types, all_fields, array_fill(null::text, array[moved]), seen) a;
end $$;

revoke execute on function notifier.outbox_begin, notifier.outbox_wake, notifier.pump from public;
-- Also where functions are not for everybody by default: publishers need these, and the checks run with their rights.
grant execute on function
    notifier.publish(text, json, text, text, int, text[]), notifier.publish(text, jsonb, text, text, int, text[]),
    notifier.publish(text, text, text, text, int, text[]), notifier.publish_text(text, text, text, text, int, text[]),
    notifier.publish_bytes(text, bytea, text, text, text, int, text[]),
    notifier.is_topic, notifier.is_content_type, notifier.are_tags, notifier.check_json, notifier.is_readable_json,
    notifier.is_json, notifier.is_json_type
to public;
