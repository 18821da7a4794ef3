-- What a server needs to know to hand on, without reading them again, the messages that it has just committed itself.

-- The time that append() gave to a message. Volatile, so that it sees what the statement it is called in has appended.
create function notifier.time_of(seq bigint) returns timestamptz language sql volatile as $$
    select m.time from notifier.message m where m.seq = time_of.seq
$$;
revoke execute on function notifier.time_of from public;

-- As before, but the notification says up to where it has appended: who has that already need not read.
create or replace function notifier.append(
    topics text[], bodies bytea[], content_types text[], all_fields text[], all_headers text[]
) returns bigint language plpgsql as $$
declare
    first_seq bigint;
    last_seq bigint;
    now_time timestamptz;
begin
    -- A statement of its own: what follows must see everything committed by the previous holder.
    perform pg_advisory_xact_lock(1852798057, 1);
    -- A topic that comes back after it was forgotten has lost something, and nobody knows any more which do.
    insert into notifier.topic (name, floor_seq)
        select distinct t.name, r.forgotten_seq from unnest(topics) t (name), notifier.retention r
        where not exists (select from notifier.topic known where known.name = t.name collate "C");
    first_seq := nextval('notifier.message_seq');
    last_seq := first_seq + cardinality(topics) - 1;
    perform setval('notifier.message_seq', last_seq);
    -- time never decreases, even where the clock is set back.
    now_time := greatest(clock_timestamp(), (select m.time from notifier.message m order by m.seq desc limit 1));
    insert into notifier.message (seq, topic_id, time, body, content_type, fields, headers)
        select first_seq + n.n - 1, t.id, now_time, n.body, n.content_type, n.fields::json, n.headers::json
        from unnest(topics, bodies, content_types, all_fields, all_headers)
            with ordinality n (topic, body, content_type, fields, headers, n)
        join notifier.topic t on t.name = n.topic collate "C";
    perform pg_notify('notifier', last_seq::text);
    return first_seq;
end $$;

-- Plans are kept for as long as a connection, and the first is made when the tables may be almost empty: then a scan of
-- all topics is cheapest, and takes 9 ms a publish when there are 100,000 of them, until the next ANALYZE.
alter function notifier.append set enable_seqscan = off;
alter function notifier.append set enable_hashjoin = off;
alter function notifier.append set enable_mergejoin = off;
alter function notifier.pump set enable_seqscan = off;
alter function notifier.retain set enable_seqscan = off;
