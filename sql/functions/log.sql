-- The log: appending, flushing, and finding a time in it.

-- Appending and flushing are apart: if the order lock were held until the flush is over, each commit would wait for the
-- flush of the one before, which could have been shared. So append() runs in a transaction that does not wait for the
-- disk and whose end lets the next one go on; then the messages are flushed. A crash may still take what is visible but
-- not flushed, so it is not passed on.

-- Stores large bodies before the order lock is taken: to store 25 MB takes some tenths of a second, for which all others
-- would wait. They are rows of the calling transaction with a seq below 0, which append() changes into one of the log;
-- Postgres leaves a large value where it is when its row is updated. Returns the bodies with null in the place of each of
-- these. The n-th has the seq first - n, where first is what ahead() returns: no other transaction has the same.
create or replace function notifier.store_ahead(bodies bytea[]) returns bytea[] language plpgsql
set plan_cache_mode = force_generic_plan set jit = off as $$
begin
    insert into notifier.message (seq, topic_id, time, body)
        select notifier.ahead() - b.n, 0, '-infinity', b.body from unnest(bodies) with ordinality b (body, n)
        where octet_length(b.body) > 65536;
    return array(
        select case when octet_length(b.body) <= 65536 then b.body end
        from unnest(bodies) with ordinality b (body, n) order by b.n
    );
end $$;

create or replace function notifier.ahead() returns bigint language sql stable
return -(pg_current_xact_id()::text::bigint << 16);

-- Appends rows to the log: the only function that draws from message_seq. Returns the seq of the first (the others
-- follow without a hole, in array order) and the time of all. Notifies no one. Fails where the log has not come as far as
-- the caller has seen: then the database has been set back, and a new epoch must begin before anything is appended.
--
-- Plans are kept for as long as a connection, because planning for each call takes five times as long as the rest of it.
-- A plan may have been made when the tables were almost empty: then a scan of all topics is cheapest, and takes 9 ms a
-- publish when there are 100,000 of them, until the next ANALYZE; so only one way is left. Where scans of
-- whole tables are off, Postgres before 18 adds a prohibitive cost to those that cannot be avoided (of retention's one
-- row), and compiles the statement because it seems so expensive: 50 ms per publish instead of half a millisecond.
--
-- unseen: whether there is a change of access that was not seen in the snapshot known; null where none is known. It is
-- looked for under the lock: what was committed before a message was published is found, whoever appends it.
create or replace function notifier.append(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[], seen bigint default 0,
    known pg_snapshot default null, out first_seq bigint, out now_time timestamptz, out unseen boolean
) language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    newest xid8;
    known_topic bigint;
begin
    if pg_column_size(bodies) > 1048576 then
        bodies := notifier.store_ahead(bodies);
    end if;
    -- A statement of its own: what follows must see everything committed by the previous holder.
    lock table notifier.order_lock in share update exclusive mode;
    if (select s.last_value from notifier.message_seq s) < seen then
        raise exception 'the database has been set back: it has not issued %', seen
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    first_seq := nextval('notifier.message_seq');
    perform setval('notifier.message_seq', first_seq + cardinality(topics) - 1);
    -- time never decreases, even where the clock is set back.
    now_time := greatest(clock_timestamp(), (select m.time from notifier.message m order by m.seq desc limit 1));
    if cardinality(topics) = 1 and bodies[1] is not null then
        -- As below, for one alone: to join arrays is a fifth of what it costs.
        known_topic := (select t.id from notifier.topic t where t.name = topics[1] collate "C");
        if known_topic is null then
            insert into notifier.topic (name, floor_seq) select topics[1], r.forgotten_seq from notifier.retention r
                returning id into known_topic;
        end if;
        insert into notifier.message (seq, topic_id, time, body, content_type, fields, headers) values (
            first_seq, known_topic, now_time, bodies[1], content_types[1], all_fields[1]::json, all_headers[1]::json
        );
    else
        -- A topic that comes back after it was forgotten has lost messages, and it is no longer known which topics have.
        insert into notifier.topic (name, floor_seq)
            select distinct t.name, r.forgotten_seq from unnest(topics) t (name), notifier.retention r
            where not exists (select from notifier.topic known where known.name = t.name collate "C");
        insert into notifier.message (seq, topic_id, time, body, content_type, fields, headers)
            select first_seq + n.n - 1, t.id, now_time, n.body, n.content_type, n.fields::json, n.headers::json
            from unnest(topics, bodies, content_types, all_fields, all_headers)
                with ordinality n (topic, body, content_type, fields, headers, n)
            join notifier.topic t on t.name = n.topic collate "C"
            where n.body is not null;
        if array_position(bodies, null) is not null then
            -- Those that were stored ahead, in the order of the others.
            update notifier.message m set seq = first_seq + n.n - 1, topic_id = t.id, time = now_time,
                content_type = n.content_type, fields = n.fields::json, headers = n.headers::json
            from (
                select s.seq, row_number() over (order by s.seq desc) as nth from notifier.message s
                where s.seq < notifier.ahead() and s.seq >= notifier.ahead() - 65536
            ) stored
            join (
                select n.*, row_number() over (order by n.n) as nth
                from unnest(topics, content_types, all_fields, all_headers)
                    with ordinality n (topic, content_type, fields, headers, n)
                where bodies[n.n] is null
            ) n on n.nth = stored.nth
            join notifier.topic t on t.name = n.topic collate "C"
            where m.seq = stored.seq;
        end if;
    end if;
    newest := (select c.xid from notifier.access_change c where c.first order by c.xid desc limit 1);
    unseen := case when known is not null then coalesce(newest >= pg_snapshot_xmax(known), false) end;
    if newest >= pg_snapshot_xmin(known) and not unseen then
        unseen := exists (
            select from notifier.access_change c where c.first and c.xid in (select pg_snapshot_xip(known))
        );
    end if;
end $$;

-- As append(), for publishes of which some have an idempotency key (null: none). sizes: how many of the messages, in
-- turn, belong to each. What has been published before with its key is not appended again, nor what another publish of
-- this call brings. Each is 'new', a 'duplicate', or in 'conflict': its key stands for another request (digest). seqs has
-- that of each one's first message, or of the one from before. now_time and unseen are null where nothing is new: then
-- what the duplicates stand for may still have to be flushed.
create or replace function notifier.append_once(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[],
    keys bytea[], digests bytea[], sizes int[], seen bigint default 0, known pg_snapshot default null,
    out seqs bigint[], out outcomes text[], out now_time timestamptz, out unseen boolean
) language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    old_seqs bigint[];  -- of those published before
    firsts int[];       -- which of this call comes first with that key
    next_seq bigint;
begin
    if pg_column_size(bodies) > 1048576 then
        bodies := notifier.store_ahead(bodies);
    end if;
    -- As in append(): it must be seen whether the previous holder had one of the keys.
    lock table notifier.order_lock in share update exclusive mode;
    select array_agg(p.old_seq order by p.n), array_agg(p.first order by p.n), array_agg(
        case when p.digest is distinct from p.old_digest then 'conflict'
            when p.old_seq is not null or p.first < p.n then 'duplicate' else 'new' end order by p.n
    ) into old_seqs, firsts, outcomes from (
        select g.n, g.digest, i.seq as old_seq,
            case when g.key is null then g.n else first_value(g.n) over same end as first,
            case when i.key is not null then i.digest when g.key is null then g.digest
                else first_value(g.digest) over same end as old_digest
        from unnest(keys, digests) with ordinality g (key, digest, n)
        left join notifier.idempotency i on i.key = g.key
        window same as (partition by g.key order by g.n)
    ) p;
    if 'new' <> any (outcomes) and array_position(bodies, null) is not null then
        delete from notifier.message m where m.seq = any (array(
            select notifier.ahead() - m.n from unnest(bodies, array(
                select p.n from unnest(sizes) with ordinality p (size, n), generate_series(1, p.size) order by p.n
            )) with ordinality m (body, publish, n)
            where m.body is null and outcomes[m.publish] <> 'new'
        ));
    end if;
    if 'new' = all (outcomes) then
        select a.first_seq, a.now_time, a.unseen into next_seq, now_time, unseen
            from notifier.append(topics, bodies, content_types, all_fields, all_headers, seen, known) a;
    elsif 'new' = any (outcomes) then
        select a.first_seq, a.now_time, a.unseen into next_seq, now_time, unseen
        from (
            select array_agg(m.topic order by m.n) as topics, array_agg(m.body order by m.n) as bodies,
                array_agg(m.content_type order by m.n) as content_types, array_agg(m.fields order by m.n) as fields,
                array_agg(m.headers order by m.n) as headers
            from unnest(topics, bodies, content_types, all_fields, all_headers, array(
                select p.n from unnest(sizes) with ordinality p (size, n), generate_series(1, p.size) order by p.n
            )) with ordinality m (topic, body, content_type, fields, headers, publish, n)
            where outcomes[m.publish] = 'new'
        ) m, notifier.append(m.topics, m.bodies, m.content_types, m.fields, m.headers, seen, known) a;
    end if;
    seqs := array(
        select next_seq + coalesce(sum(p.size) filter (where p.outcome = 'new') over (
            order by p.n rows between unbounded preceding and 1 preceding
        ), 0) from unnest(sizes, outcomes) with ordinality p (size, outcome, n) order by p.n
    );
    seqs := array(
        select coalesce(p.old_seq, seqs[p.first])
        from unnest(old_seqs, firsts) with ordinality p (old_seq, first, n) order by p.n
    );
    insert into notifier.idempotency (seq, key, digest, time)
        select p.seq, p.key, p.digest, now_time from unnest(seqs, keys, digests, outcomes) p (seq, key, digest, outcome)
        where p.outcome = 'new' and p.key is not null;
end $$;

-- Makes the commit of the calling transaction wait for the disk.
create or replace function notifier.wait_for_disk() returns void language plpgsql as $$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    -- A transaction that has written nothing does not wait at its commit.
    perform pg_logical_emit_message(true, 'notifier', '');
end $$;

-- Once the calling transaction has committed, no crash can take what it sees: a flush covers everything that
-- was committed before. It waits for the disk only where there is something newer than seen. Returns the newest seq.
create or replace function notifier.flush(seen bigint) returns bigint language plpgsql as $$
declare
    newest bigint := (select m.seq from notifier.message m order by m.seq desc limit 1);
begin
    -- What a standby shows has been flushed by its primary.
    if newest > seen and not pg_is_in_recovery() then
        perform notifier.wait_for_disk();
    end if;
    return greatest(newest, seen);
end $$;

-- Appends rows and flushes them, in two transactions, and notifies no one: NOTIFY would hold a lock of the whole cluster
-- during the flush. An error after the first transaction does not undo it: the session's setting notifier.batch, which is
-- committed with that transaction or not at all, says whether it has been.
create or replace procedure notifier.append_and_flush(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[], seen bigint, batch bigint,
    known pg_snapshot, inout first_seq bigint, inout now_time timestamptz, inout unseen boolean
) language plpgsql as $$
declare
    appended record;
begin
    perform set_config('synchronous_commit', 'off', true);
    appended := notifier.append(topics, bodies, content_types, all_fields, all_headers, seen, known);
    first_seq := appended.first_seq;
    now_time := appended.now_time;
    unseen := appended.unseen;
    perform set_config('notifier.batch', batch::text, false);
    commit;
    perform notifier.wait_for_disk();
end $$;

-- The same for publishes of which some have an idempotency key. The flush covers what the duplicates stand for, whoever
-- has appended it.
create or replace procedure notifier.append_once_and_flush(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[],
    keys bytea[], digests bytea[], sizes int[], seen bigint, batch bigint, known pg_snapshot,
    inout seqs bigint[], inout outcomes text[], inout now_time timestamptz, inout unseen boolean
) language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    select a.seqs, a.outcomes, a.now_time, a.unseen into seqs, outcomes, now_time, unseen from notifier.append_once(
        topics, bodies, content_types, all_fields, all_headers, keys, digests, sizes, seen, known
    ) a;
    perform set_config('notifier.batch', batch::text, false);
    commit;
    perform notifier.wait_for_disk();
end $$;

-- The position after which every message has time >= at; null in an empty log. time never decreases with seq, so this
-- is a binary search by primary key: some fifty probes at most, and no index on time to keep.
create or replace function notifier.seq_at(at timestamptz) returns bigint language plpgsql stable as $$
declare
    deleted bigint;
    low record;
    high record;
    probe record;
    middle bigint;
begin
    -- Beside an old snapshot, what has been pruned still has to be stepped over, if it is not left out.
    select r.deleted_seq into deleted from notifier.retention r;
    select m.seq, m.time into low from notifier.message m where m.seq > deleted order by m.seq limit 1;
    select m.seq, m.time into high from notifier.message m where m.seq > deleted order by m.seq desc limit 1;
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

revoke execute on function notifier.store_ahead, notifier.ahead, notifier.append, notifier.append_once,
    notifier.wait_for_disk, notifier.flush, notifier.seq_at from public;
revoke execute on procedure notifier.append_and_flush, notifier.append_once_and_flush from public;
