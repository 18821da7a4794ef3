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
    if notifier.is_doubtful_json(data) then
        return notifier.check_json(data);
    end if;
    return true;
end $$;

create or replace function notifier.is_doubtful_json(data text) returns boolean language plpgsql immutable strict as $$
begin
    return data operator(pg_catalog.~) E'\\\\u[dD][89a-fA-F]|[eE][+]?[0-9]{3}' collate pg_catalog."C"
        -- Without such an exponent, 210 digits are needed, or 61 brackets.
        or pg_catalog.octet_length(data) operator(pg_catalog.>) 120 and (
            data operator(pg_catalog.~) '[0-9]{100}' collate pg_catalog."C"
            or 2 operator(pg_catalog.*) pg_catalog.octet_length(data)
                operator(pg_catalog.-) pg_catalog.octet_length(pg_catalog.replace(data, '[', ''))
                operator(pg_catalog.-) pg_catalog.octet_length(pg_catalog.replace(data, '{', ''))
                operator(pg_catalog.>) 60
        );
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

-- What enters the outbox, with the rights of who inserts it. Fails with a sentence that says what is wrong, as a check of
-- the table would. (A topic that is null fails as such.) In each transaction, Postgres prepares each expression that is
-- come to; most messages have a topic and data only, and come to few.
create or replace function notifier.may_enter(
    id bigint, topic text, data json, body bytea, content_type text, title text, click text, priority int, tags text[]
) returns boolean language plpgsql immutable as $$
begin
    if id operator(pg_catalog.<=) 0 then
        return notifier.refuse('id is given by the outbox');
    elsif not notifier.is_topic(topic) then
        return notifier.refuse('topic is not a topic');
    elsif data is null and body is null or data is not null and body is not null then
        return notifier.refuse('data must be given');
    elsif body is null and content_type is not null or body is not null and content_type is null then
        return notifier.refuse('content_type goes with body');
    end if;
    if data is not null then
        if pg_catalog.octet_length(data::pg_catalog.text) operator(pg_catalog.>) 16777216 then
            return notifier.refuse('message is larger than 16 MiB');
        elsif not notifier.is_readable_json(data::pg_catalog.text) then
            return notifier.refuse('not every reader can read this JSON');
        end if;
    elsif pg_catalog.octet_length(body) operator(pg_catalog.>) 16777216 then
        return notifier.refuse('message is larger than 16 MiB');
    elsif not notifier.is_content_type(content_type) then
        return notifier.refuse('content_type is malformed');
    elsif notifier.is_json_type(content_type) and not notifier.is_json(body) then
        -- It would be spliced into the answers of all others.
        return notifier.refuse('body is not JSON');
    end if;
    if title is not null and (pg_catalog.length(title) operator(pg_catalog.=) 0
            or pg_catalog.length(title) operator(pg_catalog.>) 1000) then
        return notifier.refuse('title has 1 to 1000 characters');
    elsif click is not null and (pg_catalog.length(click) operator(pg_catalog.=) 0
            or pg_catalog.length(click) operator(pg_catalog.>) 2000) then
        return notifier.refuse('click has 1 to 2000 characters');
    elsif priority is not null and (priority operator(pg_catalog.<) 1 or priority operator(pg_catalog.>) 5) then
        return notifier.refuse('priority is 1 to 5');
    elsif tags is not null and not notifier.are_tags(tags) then
        return notifier.refuse('tags are 1 to 32 of 1 to 100 characters');
    end if;
    return true;
end $$;

create or replace function notifier.refuse(what text) returns boolean language plpgsql volatile as $$
begin
    raise exception '%', what using errcode = 'check_violation', schema = 'notifier', table = 'outbox', constraint = what;
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

create or replace function notifier.now_ms() returns bigint language sql volatile
return (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000)::bigint;

-- NOTIFY takes a lock of the whole cluster from before the commit's flush until after it, so one in each transaction
-- means one commit at a time. The try-lock lets one of the transactions that commit together notify for all; the pump
-- looks again a few times after each wake because a loser may become visible just after the winner. It is called at the
-- commit, because a lock taken inside a long transaction would mute all others until its end. Where the owner of such a
-- transaction wants it earlier (set constraints all immediate), there is a second lock.
--
-- It runs in the transactions of users, with our rights, because the locks are ours: so nothing in it may be looked up by
-- their search_path, the names of types included: a temporary domain of the name text would come before Postgres's own.
--
-- It is called for each row, and to lose the locks takes longer than to insert one. So it tries after the first row, and
-- again after twice as many; once it has notified, no more in this transaction.
--
-- While the pump finds something it looks again within milliseconds, by itself. It says so in a sequence, which all see at
-- once, and then nobody has to notify, or to try a lock, which takes ten times as long as to look there. That is a hint as
-- NOTIFY is: what is committed later than the pump has promised to look is found by its scan at the latest.
create or replace function notifier.outbox_wake() returns trigger language plpgsql security definer as $$
declare
    given pg_catalog.text;  -- the rows of this transaction before; -1: it has notified
    number pg_catalog.int4 := 1;
begin
    if pg_catalog.pg_sequence_last_value('notifier.pump_awake'::pg_catalog.regclass) operator(pg_catalog.>)
        (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000)
    then
        return null;
    end if;
    given := pg_catalog.current_setting('notifier.rows', true);
    if given operator(pg_catalog.<>) '' then
        number := given::pg_catalog.int4 operator(pg_catalog.+) 1;
    end if;
    if number operator(pg_catalog.=) 0 then
        return null;
    end if;
    perform pg_catalog.set_config('notifier.rows', number::pg_catalog.text, true);
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

-- Moves the oldest rows from the outbox, and what the changes of rows become, to the log, up to max_rows and about
-- max_bytes, without waiting for the disk: flush() afterwards, and notify no one before that.
--
-- It reads above after_id, or above the lowest mark of the transactions that were running (with numbers from first_xids
-- to before last_xids) and have ended; at most max_ids ids, because an old snapshot elsewhere keeps dead rows that have to
-- be skipped.
--
-- moved: how many messages; null while another server pumps. last_seq: the seq of the last of them. reached: up to this id
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
    promised boolean;
begin
    quiet := not notifier.may_notify();
    begin
        lock table notifier.pump_lock in share update exclusive mode nowait;
    exception when lock_not_available then
        return;
    end;
    perform set_config('synchronous_commit', 'off', true);
    moved := 0;
    -- However long this takes.
    promised := pg_sequence_last_value('notifier.pump_awake') > notifier.now_ms();
    if promised then
        perform setval('notifier.pump_awake', notifier.now_ms() + 1000);
    end if;
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
            (select i.id, coalesce(octet_length(i.body), pg_column_size(i.data)::bigint
                * case when pg_column_compression(i.data) is null then 1 else 256 end) as size
            from notifier.outbox i where i.id > from_id and i.id <= to_id order by i.id limit max_rows)
            union all
            -- To make a message may take as long as to move one of many times the size.
            (select c.id, 16 * (coalesce(pg_column_size(c.new_row), 0)::bigint + coalesce(pg_column_size(c.old_row), 0))
            from notifier.change c where c.id > from_id and c.id <= to_id order by c.id limit max_rows)
            order by id limit max_rows
        ) o
    ) sized;
    if looked_at = max_rows or cardinality(ids) < looked_at then
        to_id := ids[cardinality(ids)];
    end if;
    reached := least(to_id, head);
    if looked_at = 0 then
        -- It looks again, but not that soon.
        if promised then
            perform setval('notifier.pump_awake', notifier.now_ms());
        end if;
        return;
    end if;
    with gone as (
        delete from notifier.outbox i where i.id = any (ids)
        returning i.id, i.topic, coalesce(i.body, convert_to(i.data::text, 'UTF8')) as body,
            case when lower(btrim(split_part(i.content_type, ';', 1)) collate "C") <> 'application/json' then i.content_type end as content_type,
            nullif(jsonb_strip_nulls(jsonb_build_object(
                'title', i.title, 'click', i.click, 'priority', i.priority, 'tags', i.tags
            )), '{}')::text as fields
    ), changed as (
        delete from notifier.change c where c.id = any (ids) returning c.*
    ), messages as (
        select g.id, 0 as n, g.topic, g.body, g.content_type, g.fields from gone g
        union all
        select c.id, m.n, m.topic, convert_to(m.data, 'UTF8'), null, null from changed c
            cross join lateral notifier.row_messages(c.topic, c.shown, c.new_row, c.old_row)
            with ordinality m (topic, data, n)
    )
    select count(*), array_agg(m.topic order by m.id, m.n), array_agg(m.body order by m.id, m.n),
        array_agg(m.content_type order by m.id, m.n), array_agg(m.fields order by m.id, m.n)
    into moved, topics, bodies, content_types, all_fields
    from messages m;
    if moved > 0 then
        select a.first_seq + moved - 1 into last_seq
            from notifier.append(topics, bodies, content_types, all_fields, array_fill(null::text, array[moved]), seen) a;
    end if;
    if moved > 0 then
        -- After PACE_S, and once more after AGAIN_S[0]: see pump.py.
        perform setval('notifier.pump_awake', notifier.now_ms() + 6);
    elsif promised then
        perform setval('notifier.pump_awake', notifier.now_ms());
    end if;
end $$;

revoke execute on function
    notifier.outbox_begin, notifier.outbox_wake, notifier.now_ms, notifier.pump
from public;
-- Also where functions are not for everybody by default: publishers need these, and the checks run with their rights.
grant execute on function
    notifier.publish(text, json, text, text, int, text[]), notifier.publish(text, jsonb, text, text, int, text[]),
    notifier.publish(text, text, text, text, int, text[]), notifier.publish_text(text, text, text, text, int, text[]),
    notifier.publish_bytes(text, bytea, text, text, text, int, text[]),
    notifier.is_topic, notifier.is_content_type, notifier.are_tags, notifier.check_json, notifier.is_readable_json,
    notifier.is_doubtful_json,
    notifier.is_json, notifier.is_json_type, notifier.may_enter, notifier.refuse
to public;
