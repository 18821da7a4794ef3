-- The lives of the database.

-- Each server calls this when it connects, with the newest seq that it has seen. If this is another database than the one
-- that issued the newest ids (another server: other system identifier; a promotion: other timeline; a restored dump: other
-- database or table; an older state of the same one: it has not issued what was seen) a new epoch begins, ahead of everything issued anywhere: microseconds since 1970
-- grow faster than messages are published.
create or replace function notifier.begin_epoch(seen bigint) returns void language plpgsql as $$
declare
    -- Not pg_control_checkpoint(): after a promotion it shows the old timeline until the next checkpoint.
    this_timeline int := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int;
    this_system bigint := (select c.system_identifier from pg_control_system() c);
    this_database oid := (select d.oid from pg_database d where d.datname = current_database());
    this_relation oid := 'notifier.epoch'::regclass;
    latest notifier.epoch;
    issued bigint;
    start bigint;
begin
    lock table notifier.order_lock in share update exclusive mode;
    select * into latest from notifier.epoch e order by e.start_seq desc limit 1;
    issued := (select s.last_value from notifier.message_seq s);
    if latest.system_identifier = this_system and latest.timeline = this_timeline
        and latest.database = this_database and latest.relation = this_relation and seen <= issued
    then
        return;
    end if;
    start := greatest(extract(epoch from clock_timestamp()) * 1000000, issued + 1, seen + 1);
    update notifier.epoch e set last_seq = issued where e.start_seq = latest.start_seq;
    insert into notifier.epoch (start_seq, system_identifier, timeline, database, relation)
        values (start, this_system, this_timeline, this_database, this_relation);
    perform setval('notifier.message_seq', start);
    -- Visible, and of a transaction that has not ended: then it was one of another server.
    update notifier.access_change c set xid = '0', first = false
        where c.xid >= pg_snapshot_xmin(pg_current_snapshot())
            and not pg_visible_in_snapshot(c.xid, pg_current_snapshot());
end $$;

revoke execute on function notifier.begin_epoch from public;

-- The first, in a new database. An upgrade begins none, and so need not wait for the order lock.
select notifier.begin_epoch(0) where not exists (select from notifier.epoch);
