-- Retention: pruning the log, what was published once, and forgetting topics that have been empty for long.

-- Deletes the oldest messages with time < before, at most max_rows, by range of seq. Returns how many; 0 also while
-- another server prunes.
create or replace function notifier.prune(before timestamptz, max_rows int) returns int language plpgsql
set enable_seqscan = off set jit = off as $$
declare
    low bigint;
    high bigint;
    deleted int;
begin
    select r.deleted_seq into low from notifier.retention r for update skip locked;
    if not found then
        return 0;
    end if;
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
create or replace function notifier.forget_topics(before timestamptz, max_rows int) returns int language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    old bigint[];
    forgotten int;
begin
    perform from notifier.retention r for update skip locked;
    if not found then
        return 0;
    end if;
    -- Found before the order lock is taken, which then is held for these only.
    old := array(
        select t.id from notifier.topic t
        where t.floor_time < before and not exists (select from notifier.message m where m.topic_id = t.id)
        order by t.floor_time limit max_rows
    );
    if old = '{}' then
        return 0;
    end if;
    -- No message can be appended to a topic that is being forgotten.
    lock table notifier.order_lock in share update exclusive mode;
    with gone as (
        delete from notifier.topic t
        where t.id = any (old) and not exists (select from notifier.message m where m.topic_id = t.id)
        returning t.floor_seq
    ), floor as (
        update notifier.retention r set forgotten_seq = greatest(r.forgotten_seq, (select max(g.floor_seq) from gone g))
    )
    select count(*) into forgotten from gone;
    return forgotten;
end $$;

-- Deletes the oldest changes of access from before then, at most max_rows. Returns how many.
create or replace function notifier.prune_access(before timestamptz, max_rows int) returns int language plpgsql
set enable_seqscan = off set jit = off as $$
declare
    deleted int;
begin
    delete from notifier.access_change c where c.id in (
        select o.id from (select o.id, o.at from notifier.access_change o order by o.id limit max_rows) o
        where o.at < before
    );
    get diagnostics deleted = row_count;
    return deleted;
end $$;

-- Deletes the oldest idempotency keys from before then, at most max_rows, by range of seq. Returns how many; 0 also
-- while another server prunes.
create or replace function notifier.prune_idempotency(before timestamptz, max_rows int) returns int language plpgsql
set enable_seqscan = off set jit = off as $$
declare
    low bigint;
    high bigint;
    deleted int;
begin
    select r.idempotency_seq into low from notifier.retention r for update skip locked;
    if not found then
        return 0;
    end if;
    select max(o.seq) into high from (
        select i.seq, i.time from notifier.idempotency i where i.seq > low order by i.seq limit max_rows
    ) o where o.time < before;
    if high is null then
        return 0;
    end if;
    delete from notifier.idempotency i where i.seq > low and i.seq <= high;
    get diagnostics deleted = row_count;
    update notifier.retention r set idempotency_seq = high;
    return deleted;
end $$;

revoke execute on function notifier.prune, notifier.forget_topics, notifier.prune_access, notifier.prune_idempotency
    from public;
