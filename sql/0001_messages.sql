-- The log of messages, the inbox that SQL publishers write to, and the functions that order them.
--
-- seq is drawn only by notifier.append(), under one transaction-level advisory lock that is released after the rows have
-- become visible. So seq order is commit order, and a reader that has seen n has seen everything below n. A transaction
-- of a user never takes that lock: it inserts into the inbox, and a server's pump moves the row after the commit.
--
-- Advisory locks, all (1852798057, n) ("noti"): 1 order, 2 wake, 3 pump, 4 retention; migrations hold 5 per connection.

create table notifier.topic (
    id bigint generated always as identity primary key,
    name text collate "C" not null unique,
    floor_seq bigint not null default 0,   -- the newest of its messages that retention has deleted
    floor_time timestamptz                 -- when that was
);
create index topic_floor_time on notifier.topic (floor_time) where floor_time is not null;

create table notifier.message (
    seq bigint primary key,
    topic_id bigint not null,
    time timestamptz not null,
    body bytea not null,
    content_type text,                     -- null: application/json
    fields json,                           -- title, click, priority, tags as the wire shows them; null: none
    headers json                           -- of a webhook: [[name, value], ...]
);
-- Bodies are mostly small or already compressed; compressing them is what costs.
alter table notifier.message alter column body set storage external;
-- Insert and range delete only: keep the visibility map fresh.
alter table notifier.message set (autovacuum_vacuum_insert_scale_factor = 0.02);
create index message_topic on notifier.message (topic_id, seq);

-- CACHE stays 1: blocks of numbers cached by a connection would break the order.
create sequence notifier.message_seq as bigint cache 1;

-- One row: what retention has deleted. Everything up to deleted_seq is gone; topics that were forgotten altogether had
-- their last message at or below forgotten_seq.
create table notifier.retention (
    deleted_seq bigint not null,
    forgotten_seq bigint not null
);
insert into notifier.retention values (0, 0);
create unique index retention_one_row on notifier.retention ((true));

-- The lives of this database. Ids from start_seq + 1 to last_seq (null: so far) were issued in this one.
create table notifier.epoch (
    start_seq bigint primary key,
    last_seq bigint,
    system_identifier bigint not null,
    timeline int not null,
    time timestamptz not null default clock_timestamp()
);

create function notifier.is_topic(name text) returns boolean
language sql immutable parallel safe strict
return length(name) <= 255
    and name ~ '^[A-Za-z0-9_.:@=+-]+(/[A-Za-z0-9_.:@=+-]+)*$' collate "C"
    and name !~ '(^|/)\.\.?(/|$)' collate "C";

create function notifier.are_tags(tags text[]) returns boolean
language sql immutable parallel safe strict
return cardinality(tags) between 1 and 32
    and array_position(tags, null) is null
    and not exists (select from unnest(tags) tag where length(tag) not between 1 and 100);

-- Fails (like a cast) where a body is no JSON.
create function notifier.is_json(body bytea) returns boolean
language sql immutable parallel safe strict
return convert_from(body, 'UTF8')::json is not null;

create function notifier.is_json_type(content_type text) returns boolean
language sql immutable parallel safe strict
return lower(btrim(split_part(content_type, ';', 1))) ~ '(^application/json|\+json)$' collate "C";

-- Where SQL publishers write. What is malformed fails here, in the caller's own statement: one bad row must never stop
-- the pump. Exactly one of data (JSON) and body (anything, with its content type) is given.
create table notifier.inbox (
    id bigint generated always as identity primary key,
    topic text not null,
    data json,
    body bytea,
    content_type text,
    title text,
    click text,
    priority int,
    tags text[],
    constraint "topic is not a topic" check (notifier.is_topic(topic)),
    constraint "data must be given" check ((data is null) <> (body is null)),
    constraint "content_type goes with body" check ((body is null) = (content_type is null)),
    constraint "content_type is malformed" check (content_type ~ '^[!-~]+/[ -~]+$' and length(content_type) <= 255),
    -- It would be spliced into the answers of everybody else.
    constraint "body is not JSON" check (content_type is null or not notifier.is_json_type(content_type) or notifier.is_json(body)),
    constraint "message is larger than 16 MiB" check (coalesce(octet_length(data::text), octet_length(body)) <= 16777216),
    constraint "title has 1 to 1000 characters" check (length(title) between 1 and 1000),
    constraint "click has 1 to 2000 characters" check (length(click) between 1 and 2000),
    constraint "priority is 1 to 5" check (priority between 1 and 5),
    constraint "tags are 1 to 32 of 1 to 100 characters" check (notifier.are_tags(tags))
);
alter table notifier.inbox alter column data set storage external, alter column body set storage external;
-- The one table with churn.
alter table notifier.inbox set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- NOTIFY takes a lock of the whole cluster from before the commit's flush until after it, so one in each transaction
-- means one commit at a time. The try-lock lets one of the transactions that commit together notify for all; the pump
-- looks again a few times after each wake because a loser may become visible just after the winner. Deferred, because a
-- lock taken inside a long transaction would mute everybody else until its end.
create function notifier.inbox_wake() returns trigger language plpgsql as $$
begin
    if pg_catalog.pg_try_advisory_xact_lock(1852798057, 2) then
        perform pg_catalog.pg_notify('notifier_inbox', '');
    end if;
    return null;
end $$;
create constraint trigger inbox_wake after insert on notifier.inbox
    deferrable initially deferred for each row execute function notifier.inbox_wake();

-- For publishers in SQL. They return nothing: the id comes after the commit.
create function notifier.publish(
    topic text, data json, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.inbox (topic, data, title, click, priority, tags)
    values (topic, data, title, click, priority, tags);
end;

create function notifier.publish(
    topic text, data jsonb, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.inbox (topic, data, title, click, priority, tags)
    values (topic, data::json, title, click, priority, tags);
end;

create function notifier.publish(
    topic text, data text, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.inbox (topic, data, title, click, priority, tags)
    values (topic, data::json, title, click, priority, tags);
end;

create function notifier.publish_text(
    topic text, data text, title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.inbox (topic, body, content_type, title, click, priority, tags)
    values (topic, convert_to(data, 'UTF8'), 'text/plain; charset=utf-8', title, click, priority, tags);
end;

create function notifier.publish_bytes(
    topic text, data bytea, content_type text default 'application/octet-stream',
    title text default null, click text default null, priority int default null, tags text[] default null
) returns void language sql volatile security definer
begin atomic
    insert into notifier.inbox (topic, body, content_type, title, click, priority, tags)
    values (topic, data, content_type, title, click, priority, tags);
end;

-- For the servers.

-- Gives rows their place in the log: the only function that draws from message_seq. Returns the seq of the first; the
-- others follow without a hole, in array order.
create function notifier.append(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[]
) returns bigint language plpgsql as $$
declare
    first_seq bigint;
    now_time timestamptz;
begin
    -- A statement of its own: what follows must see everything committed by the previous holder.
    perform pg_advisory_xact_lock(1852798057, 1);
    -- A topic that comes back after it was forgotten has lost something, and nobody knows any more which do.
    insert into notifier.topic (name, floor_seq)
        select distinct t.name, r.forgotten_seq from unnest(topics) t (name), notifier.retention r
        where not exists (select from notifier.topic known where known.name = t.name collate "C");
    first_seq := nextval('notifier.message_seq');
    perform setval('notifier.message_seq', first_seq + cardinality(topics) - 1);
    -- time never decreases, even where the clock is set back.
    now_time := greatest(clock_timestamp(), (select m.time from notifier.message m order by m.seq desc limit 1));
    insert into notifier.message (seq, topic_id, time, body, content_type, fields, headers)
        select first_seq + n.n - 1, t.id, now_time, n.body, n.content_type, n.fields::json, n.headers::json
        from unnest(topics, bodies, content_types, all_fields, all_headers)
            with ordinality n (topic, body, content_type, fields, headers, n)
        join notifier.topic t on t.name = n.topic collate "C";
    perform pg_notify('notifier', '');
    return first_seq;
end $$;

-- Moves the oldest rows above after_id, up to max_rows and about max_bytes, from the inbox to the log. Returns how many
-- and the highest id among them. Nothing moves while another server pumps.
create function notifier.pump(after_id bigint, max_rows int, max_bytes bigint, out moved int, out last_id bigint)
language plpgsql as $$
declare
    ids bigint[];
begin
    moved := 0;
    if not exists (select from notifier.inbox i where i.id > after_id)
        or not pg_try_advisory_xact_lock(1852798057, 3)
    then
        return;
    end if;
    -- Looked up before append() takes the order lock: an old snapshot elsewhere keeps dead rows here and makes this slow,
    -- and that must not hold up HTTP publishers.
    ids := array(
        select sized.id from (
            select o.id, o.size, sum(o.size) over (order by o.id) as total
            from (
                select i.id, coalesce(octet_length(i.body), octet_length(i.data::text)) as size
                from notifier.inbox i where i.id > after_id order by i.id limit max_rows
            ) o
        ) sized where sized.total - sized.size < max_bytes
    );
    if ids = '{}' then
        return;
    end if;
    with gone as (
        delete from notifier.inbox i where i.id = any (ids)
        returning i.id, i.topic, coalesce(i.body, convert_to(i.data::text, 'UTF8')) as body,
            case when lower(btrim(split_part(i.content_type, ';', 1))) <> 'application/json' then i.content_type end as content_type,
            nullif(jsonb_strip_nulls(jsonb_build_object(
                'title', i.title, 'click', i.click, 'priority', i.priority, 'tags', i.tags
            )), '{}')::text as fields
    )
    select count(*), max(g.id) from gone g
    having notifier.append(
        array_agg(g.topic order by g.id), array_agg(g.body order by g.id), array_agg(g.content_type order by g.id),
        array_agg(g.fields order by g.id), array_agg(null::text)
    ) > 0
    into moved, last_id;
end $$;

-- The position after which every message has time >= at; null in an empty log. time never decreases with seq, so this
-- is a binary search by primary key: some fifty probes at most, and no index on time to keep.
create function notifier.seq_at(at timestamptz) returns bigint language plpgsql stable as $$
declare
    low record;
    high record;
    probe record;
    middle bigint;
begin
    select m.seq, m.time into low from notifier.message m order by m.seq limit 1;
    select m.seq, m.time into high from notifier.message m order by m.seq desc limit 1;
    if low.time >= at then
        return low.seq - 1;
    elsif high.time < at or high is null then
        return high.seq;
    end if;
    while high.seq - low.seq > 1 loop
        middle := low.seq + (high.seq - low.seq) / 2;
        select m.seq, m.time into probe from notifier.message m where m.seq <= middle order by m.seq desc limit 1;
        if probe.time < at then
            low.seq := middle;
        else
            high.seq := probe.seq;
        end if;
    end loop;
    return low.seq;
end $$;

-- Deletes the oldest messages with time < before, at most max_rows, by range of seq. Returns how many; 0 also while
-- another server does it.
create function notifier.retain(before timestamptz, max_rows int) returns int language plpgsql as $$
declare
    low bigint;
    high bigint;
    deleted int;
begin
    if not pg_try_advisory_xact_lock(1852798057, 4) then
        return 0;
    end if;
    select r.deleted_seq into low from notifier.retention r;
    select max(o.seq) into high from (
        select m.seq, m.time from notifier.message m where m.seq > low order by m.seq limit max_rows
    ) o where o.time < before;
    if high is null then
        return 0;
    end if;
    with gone as (
        delete from notifier.message m where m.seq > low and m.seq <= high returning m.topic_id, m.seq
    ), floors as (
        update notifier.topic t set floor_seq = g.seq, floor_time = clock_timestamp()
        from (select topic_id, max(seq) as seq from gone group by topic_id) g where t.id = g.topic_id
    )
    select count(*) into deleted from gone;
    update notifier.retention r set deleted_seq = high;
    return deleted;
end $$;

-- Forgets at most max_rows topics whose last message was deleted before then. A cursor older than that is told a gap for
-- any topic that is not known, which is all that can be said.
create function notifier.forget_topics(before timestamptz, max_rows int) returns int language plpgsql as $$
declare
    forgotten int;
begin
    perform pg_advisory_xact_lock(1852798057, 1);   -- no message can be appended to a topic that is being forgotten
    with old as (
        select t.id from notifier.topic t
        where t.floor_time < before and not exists (select from notifier.message m where m.topic_id = t.id)
        order by t.floor_time limit max_rows
    ), gone as (
        delete from notifier.topic t using old where t.id = old.id returning t.floor_seq
    ), floor as (
        update notifier.retention r set forgotten_seq = greatest(r.forgotten_seq, (select max(g.floor_seq) from gone g))
    )
    select count(*) into forgotten from gone;
    return forgotten;
end $$;

-- Called by each server when it connects, with the newest seq that it has seen. Where this is another database than the one
-- that issued the newest ids (a restore: other system identifier; a promotion: other timeline; an older state of the same
-- one: it has not issued what was seen) a new epoch begins, ahead of everything issued anywhere: microseconds since 1970
-- grow faster than messages are published.
create function notifier.begin_epoch(seen bigint) returns void language plpgsql as $$
declare
    -- Not pg_control_checkpoint(): after a promotion it shows the old timeline until the next checkpoint.
    this_timeline int := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int;
    this_system bigint := (select c.system_identifier from pg_control_system() c);
    latest notifier.epoch;
    issued bigint;
    start bigint;
begin
    perform pg_advisory_xact_lock(1852798057, 1);
    select * into latest from notifier.epoch e order by e.start_seq desc limit 1;
    issued := (select s.last_value from notifier.message_seq s);
    if latest.system_identifier = this_system and latest.timeline = this_timeline and seen <= issued then
        return;
    end if;
    start := greatest(extract(epoch from clock_timestamp()) * 1000000, issued + 1, seen + 1);
    update notifier.epoch e set last_seq = issued where e.start_seq = latest.start_seq;
    insert into notifier.epoch (start_seq, system_identifier, timeline) values (start, this_system, this_timeline);
    perform setval('notifier.message_seq', start);
end $$;
select notifier.begin_epoch(0);

-- A role that may use the schema can publish, and nothing else.
revoke execute on function
    notifier.append, notifier.pump, notifier.seq_at, notifier.retain, notifier.forget_topics, notifier.begin_epoch,
    notifier.inbox_wake
from public;
