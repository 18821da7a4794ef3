-- What is published later: into notifier.scheduled, and from there, when it is due, into the log.

-- publish() and its kin with `at`. What is due already goes through the outbox. That is decided by the transaction's
-- clock, which stands still: any other could say "later" first, and "not later" then. They are functions of their own, so
-- that publishing now costs no more for them.
create or replace function notifier.publish(
    topic text, data json, at timestamptz,
    title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, data, title, click, priority, tags)
    select topic, data, title, click, priority, tags where coalesce(at <= now(), true);
    insert into notifier.scheduled (at, topic, data, title, click, priority, tags)
    select at, topic, data, title, click, priority, tags where at > now();
end;

create or replace function notifier.publish(
    topic text, data jsonb, at timestamptz,
    title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, data, title, click, priority, tags)
    select topic, data::json, title, click, priority, tags where coalesce(at <= now(), true);
    insert into notifier.scheduled (at, topic, data, title, click, priority, tags)
    select at, topic, data::json, title, click, priority, tags where at > now();
end;

create or replace function notifier.publish(
    topic text, data text, at timestamptz,
    title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, data, title, click, priority, tags)
    select topic, data::json, title, click, priority, tags where coalesce(at <= now(), true);
    insert into notifier.scheduled (at, topic, data, title, click, priority, tags)
    select at, topic, data::json, title, click, priority, tags where at > now();
end;

create or replace function notifier.publish_text(
    topic text, data text, at timestamptz,
    title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, body, content_type, title, click, priority, tags)
    select topic, convert_to(data, 'UTF8'), 'text/plain; charset=utf-8', title, click, priority, tags where coalesce(at <= now(), true);
    insert into notifier.scheduled (at, topic, body, content_type, title, click, priority, tags)
    select at, topic, convert_to(data, 'UTF8'), 'text/plain; charset=utf-8', title, click, priority, tags where at > now();
end;

create or replace function notifier.publish_bytes(
    topic text, data bytea, at timestamptz, content_type text default 'application/octet-stream',
    title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.outbox (topic, body, content_type, title, click, priority, tags)
    select topic, data, content_type, title, click, priority, tags where coalesce(at <= now(), true);
    insert into notifier.scheduled (at, topic, body, content_type, title, click, priority, tags)
    select at, topic, data, content_type, title, click, priority, tags where at > now();
end;

-- Moves what is scheduled and due to the log, by (at, id), as pump() moves the oldest rows of the outbox; from
-- (after_at, after_id) on; null: from the beginning. A row that another transaction has locked is left for later: it is being deleted, perhaps by
-- one that stays open.
--
-- moved: how many; null while another server pumps, or the table is locked. last_seq: the seq of the last of them.
-- looked_at: what is due by then
-- has been looked at; with reached_id, there is more after (reached_at, reached_id). due_s: seconds until the next is due;
-- null: none is due within a second, when the pump has looked again (DUE_SCAN_S in pump.py).
create or replace function notifier.pump_due(
    after_at timestamptz, after_id bigint, max_rows int, max_bytes bigint, seen bigint default 0,
    out moved int, out last_seq bigint, out looked_at timestamptz, out reached_at timestamptz, out reached_id bigint,
    out due_s float8
) language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
declare
    ids bigint[];
    ats timestamptz[];
    found_rows int;
    topics text[];
    bodies bytea[];
    content_types text[];
    all_fields text[];
begin
    begin
        lock table notifier.pump_lock in share update exclusive mode nowait;
        lock table notifier.scheduled in row exclusive mode nowait;  -- else the outbox would wait as well
    exception when lock_not_available then
        return;
    end;
    perform set_config('synchronous_commit', 'off', true);
    moved := 0;
    after_at := coalesce(after_at, '-infinity');
    looked_at := clock_timestamp();
    -- The lock decides between this and a delete: either that one waits, and finds the row gone, or the row is not moved.
    select array_agg(sized.id order by sized.at, sized.id) filter (where sized.total - sized.size < max_bytes),
        array_agg(sized.at order by sized.at, sized.id), count(*)
    into ids, ats, found_rows from (
        select o.id, o.at, o.size, sum(o.size) over (order by o.at, o.id) as total
        from (
            select s.id, s.at, coalesce(octet_length(s.body), pg_column_size(s.data)::bigint
                * case when pg_column_compression(s.data) is null then 1 else 256 end) as size
            from notifier.scheduled s where (s.at, s.id) > (after_at, after_id) and s.at <= looked_at
            order by s.at, s.id limit max_rows for update skip locked
        ) o
    ) sized;
    if found_rows = max_rows or cardinality(ids) < found_rows then
        reached_id := ids[cardinality(ids)];
        reached_at := ats[cardinality(ids)];
    end if;
    -- No further than the next look: what another transaction has stored for later, and not committed, or has deleted
    -- beside an old snapshot, would have to be stepped over each time, however much it is.
    due_s := extract(epoch from (
        select s.at from notifier.scheduled s where s.at > looked_at and s.at <= looked_at + interval '1 s'
        order by s.at, s.id limit 1
    ) - clock_timestamp());
    if found_rows = 0 then
        return;
    end if;
    with gone as (
        delete from notifier.scheduled s where s.id = any (ids)
        returning s.at, s.id, s.topic, coalesce(s.body, convert_to(s.data::text, 'UTF8')) as body,
            case when lower(btrim(split_part(s.content_type, ';', 1)) collate "C") <> 'application/json' then s.content_type end as content_type,
            nullif(jsonb_strip_nulls(jsonb_build_object(
                'title', s.title, 'click', s.click, 'priority', s.priority, 'tags', s.tags
            )), '{}')::text as fields
    )
    select count(*), array_agg(g.topic order by g.at, g.id), array_agg(g.body order by g.at, g.id),
        array_agg(g.content_type order by g.at, g.id), array_agg(g.fields order by g.at, g.id)
    into moved, topics, bodies, content_types, all_fields
    from gone g;
    select a.first_seq + moved - 1 into last_seq
        from notifier.append(topics, bodies, content_types, all_fields, array_fill(null::text, array[moved]), seen) a;
end $$;

-- What is published later over HTTP: at that time, or so long from now. Returns its id, its time, and the seconds until
-- then. outcome: 'new'; with a key that was used before, a 'duplicate', and what was returned then; or, where that was for
-- another request (digest), a 'conflict'.
create or replace function notifier.schedule(
    topic text, body bytea, content_type text, fields json, at timestamptz, delay interval, key bytea, digest bytea,
    out scheduled_id bigint, out due_at timestamptz, out due_s float8, out outcome text
) language plpgsql as $$
#variable_conflict use_variable
begin
    loop
        scheduled_id := nextval('notifier.scheduled_id_seq');
        due_at := coalesce(at, clock_timestamp() + delay);
        outcome := 'new';
        exit when key is null;
        -- It waits for the end of a transaction that has written the same key.
        insert into notifier.scheduled_key (key, digest, scheduled_id, at)
            values (schedule.key, schedule.digest, schedule.scheduled_id, due_at) on conflict do nothing;
        exit when found;
        select k.scheduled_id, k.at, case when k.digest = schedule.digest then 'duplicate' else 'conflict' end
            into scheduled_id, due_at, outcome from notifier.scheduled_key k where k.key = schedule.key;
        if found then
            return;
        end if;
        -- It has been pruned in between.
    end loop;
    insert into notifier.scheduled (id, at, topic, body, content_type, title, click, priority, tags)
    overriding system value values (
        scheduled_id, due_at, topic, body, coalesce(content_type, 'application/json'),
        fields ->> 'title', fields ->> 'click', (fields ->> 'priority')::int,
        case when fields -> 'tags' is not null then array(select json_array_elements_text(fields -> 'tags')) end
    );
    due_s := extract(epoch from due_at - clock_timestamp());
end $$;

-- Deletes the oldest keys of what was scheduled before then, at most max_rows. Returns how many.
create or replace function notifier.prune_scheduled_keys(before timestamptz, max_rows int) returns int language plpgsql
set enable_seqscan = off set jit = off as $$
declare
    deleted int;
begin
    delete from notifier.scheduled_key k where k.key in (
        select o.key from notifier.scheduled_key o where o.time < before
        order by o.time limit max_rows for update skip locked
    );
    get diagnostics deleted = row_count;
    return deleted;
end $$;

revoke execute on function notifier.pump_due, notifier.schedule, notifier.prune_scheduled_keys from public;
grant execute on function
    notifier.publish(text, json, timestamptz, text, text, int, text[]),
    notifier.publish(text, jsonb, timestamptz, text, text, int, text[]),
    notifier.publish(text, text, timestamptz, text, text, int, text[]),
    notifier.publish_text(text, text, timestamptz, text, text, int, text[]),
    notifier.publish_bytes(text, bytea, timestamptz, text, text, text, int, text[])
to public;
