-- The outbox: what enters it is checked here, and the pump takes it from there into the log.

create or replace function notifier.is_topic(name text) returns boolean
language sql immutable parallel safe strict
return length(name) <= 255
    and name ~ '^[A-Za-z0-9_.:@=+-]+(/[A-Za-z0-9_.:@=+-]+)*$' collate "C"
    and name !~ '(^|/)[.][.]?(/|$)' collate "C";

create or replace function notifier.are_tags(tags text[]) returns boolean
language sql immutable parallel safe strict
return cardinality(tags) between 1 and 32
    and array_position(tags, null) is null
    and not exists (select from unnest(tags) tag where length(tag) not between 1 and 100);

-- Fails (like a cast) where a body is no JSON.
create or replace function notifier.is_json(body bytea) returns boolean
language sql immutable parallel safe strict
return convert_from(body, 'UTF8')::json is not null;

create or replace function notifier.is_json_type(content_type text) returns boolean
language sql immutable parallel safe strict
return lower(btrim(split_part(content_type, ';', 1))) ~ '(^application/json|[+]json)$' collate "C";

-- NOTIFY takes a lock of the whole cluster from before the commit's flush until after it, so one in each transaction
-- means one commit at a time. The try-lock lets one of the transactions that commit together notify for all; the pump
-- looks again a few times after each wake because a loser may become visible just after the winner. It is called at the
-- commit, because a lock taken inside a long transaction would mute all others until its end. Where the owner of such a
-- transaction wants it earlier (set constraints all immediate), there is a second lock.
--
-- It runs in the transactions of users, with our rights, because the locks are ours: so nothing in it may be looked up by
-- their search_path.
create or replace function notifier.outbox_wake() returns trigger language plpgsql security definer as $$
begin
    begin
        lock table notifier.wake_lock in share update exclusive mode nowait;
    exception when lock_not_available then
        begin
            lock table notifier.wake_lock_2 in share update exclusive mode nowait;
        exception when lock_not_available then
            return null;
        end;
    end;
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

-- Moves the oldest rows above after_id, up to max_rows and about max_bytes, from the outbox to the log. Returns how many
-- and the highest id among them. Nothing moves while another server pumps.
create or replace function notifier.pump(after_id bigint, max_rows int, max_bytes bigint, out moved int, out last_id bigint)
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    ids bigint[];
    topics text[];
    bodies bytea[];
    content_types text[];
    all_fields text[];
    first_seq bigint;
begin
    moved := 0;
    if not exists (select from notifier.outbox i where i.id > after_id) then
        return;
    end if;
    begin
        lock table notifier.pump_lock in share update exclusive mode nowait;
    exception when lock_not_available then
        return;
    end;
    -- Looked up before append() takes the order lock: an old snapshot elsewhere keeps dead rows here and makes this slow,
    -- and that must not hold up HTTP publishers.
    ids := array(
        select sized.id from (
            select o.id, o.size, sum(o.size) over (order by o.id) as total
            from (
                select i.id, coalesce(octet_length(i.body), octet_length(i.data::text)) as size
                from notifier.outbox i where i.id > after_id order by i.id limit max_rows
            ) o
        ) sized where sized.total - sized.size < max_bytes
    );
    if ids = '{}' then
        return;
    end if;
    with gone as (
        delete from notifier.outbox i where i.id = any (ids)
        returning i.id, i.topic, coalesce(i.body, convert_to(i.data::text, 'UTF8')) as body,
            case when lower(btrim(split_part(i.content_type, ';', 1))) <> 'application/json' then i.content_type end as content_type,
            nullif(jsonb_strip_nulls(jsonb_build_object(
                'title', i.title, 'click', i.click, 'priority', i.priority, 'tags', i.tags
            )), '{}')::text as fields
    )
    select count(*), max(g.id), array_agg(g.topic order by g.id), array_agg(g.body order by g.id),
        array_agg(g.content_type order by g.id), array_agg(g.fields order by g.id)
    into moved, last_id, topics, bodies, content_types, all_fields
    from gone g;
    select a.first_seq into first_seq
        from notifier.append(topics, bodies, content_types, all_fields, array_fill(null::text, array[moved])) a;
    -- Sent when the transaction has been committed and flushed.
    perform pg_notify('notifier', (first_seq + moved - 1)::text);
end $$;

revoke execute on function notifier.outbox_wake, notifier.pump from public;
