-- Appending and flushing apart. Who holds the order lock until the flush is over makes everybody wait whose flush could
-- have been the same one. So messages are placed by a transaction that does not wait for the disk, whose end lets the
-- next go on, and then settled. What is visible but not settled may still be lost in a crash: nobody passes it on.

-- Gives rows their place in the log: the only function that draws from message_seq. Returns the seq of the first (the
-- others follow without a hole, in array order) and the time of all. Tells nobody.
create function notifier.place(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[],
    out first_seq bigint, out now_time timestamptz
) language plpgsql as $$
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
end $$;
alter function notifier.place set enable_seqscan = off;
alter function notifier.place set enable_hashjoin = off;
alter function notifier.place set enable_mergejoin = off;
alter function notifier.place set jit = off;

-- Places rows and tells all servers, when the transaction that calls it has been committed and flushed.
create or replace function notifier.append(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[]
) returns bigint language plpgsql as $$
declare
    first_seq bigint;
begin
    select p.first_seq into first_seq from notifier.place(topics, bodies, content_types, all_fields, all_headers) p;
    perform pg_notify('notifier', (first_seq + cardinality(topics) - 1)::text);
    return first_seq;
end $$;
alter function notifier.append reset all;

-- Once the transaction that calls this has been committed, no crash can take what it sees: a flush is of everything that
-- was committed before. It waits for the disk only where there is something newer than seen. Returns the newest seq.
create function notifier.settle(seen bigint) returns bigint language plpgsql as $$
declare
    newest bigint := (select m.seq from notifier.message m order by m.seq desc limit 1);
begin
    -- What a standby shows has been flushed by its primary.
    if newest > seen and not pg_is_in_recovery() then
        -- Without anything written, not even a commit waits for the disk.
        perform pg_logical_emit_message(true, 'notifier', '');
    end if;
    return greatest(newest, seen);
end $$;

-- Places rows and settles them, in two transactions, and tells nobody: NOTIFY would keep a lock of the whole cluster
-- during the flush. An error after the first of them does not undo it.
create procedure notifier.place_and_settle(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[],
    inout first_seq bigint, inout now_time timestamptz
) language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    select p.first_seq, p.now_time into first_seq, now_time
        from notifier.place(topics, bodies, content_types, all_fields, all_headers) p;
    commit;
    perform pg_logical_emit_message(true, 'notifier', '');
end $$;

drop function notifier.time_of;

revoke execute on function notifier.place, notifier.settle from public;
revoke execute on procedure notifier.place_and_settle from public;
