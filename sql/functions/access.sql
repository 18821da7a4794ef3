-- Access: what changes in it is written down, for all servers to see.

-- Notes a change. Nothing is read here, so nothing that a transaction of a user does can clash with another one's at any
-- isolation level: the one conflict that can occur is with a row of the same transaction.
create or replace function notifier.note_access(kind text, subject text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
    insert into notifier.access_change (first, kind, subject) values (true, note_access.kind, note_access.subject)
        on conflict (xid) where first do nothing;
    if not found then
        insert into notifier.access_change (first, kind, subject) values (false, note_access.kind, note_access.subject);
    elsif notifier.may_notify() then
        perform pg_notify('notifier_access', '');
    end if;
end $$;

-- Refuses every token of this subject that was issued until the commit of the calling transaction, and ends what is
-- parked with one, on all servers, from that on.
create or replace function notifier.revoke(subject text) returns void language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    perform notifier.check_subject(subject);
    perform notifier.note_access('revoked', subject);
end $$;

-- Says that this subject may do more, or less, than before: what was known of it is asked for anew, on all servers, from
-- the commit of the calling transaction on.
create or replace function notifier.access_changed(subject text) returns void language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    perform notifier.check_subject(subject);
    perform notifier.note_access('changed', subject);
end $$;

create or replace function notifier.check_subject(subject text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
    if length(subject) between 1 and 255 then
        return;
    end if;
    raise exception 'a subject has 1 to 255 characters' using errcode = 'invalid_parameter_value';
end $$;

-- Of notifier.access_change, deferred to the commit. Until then others see the session that ends with it, and may issue
-- tokens for it. Found by its place, because a look into an index could clash with another transaction's.
create or replace function notifier.revoked_at_commit() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    update notifier.access_change set at = clock_timestamp() where ctid = new.ctid;
    return null;
end $$;

-- Of notifier.key; in the transactions of those who may change it.
create or replace function notifier.key_changed() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    perform notifier.note_access('key', null);
    return null;
end $$;

-- Whether this statement sees a change that was not seen in the snapshot known; null where none is known. Stable: what is
-- seen is what the statement sees that calls it.
--
-- The newest entry of the index is looked at, and not whether there is one in a range, for which a scan of the whole
-- table could seem cheaper. append() has the same in itself.
create or replace function notifier.access_unseen(known pg_snapshot) returns boolean language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
begin
    return coalesce((select c.xid from notifier.access_change c where c.first order by c.xid desc limit 1), '0')
            >= pg_snapshot_xmax(known)
        or exists (select from notifier.access_change c where c.first and c.xid in (select pg_snapshot_xip(known)));
end $$;

-- The changes that were not seen in the snapshot known, in order; at most max_rows.
create or replace function notifier.access_changes(known pg_snapshot, max_rows int)
returns table (kind text, subject text, at double precision) language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
begin
    return query
        select c.kind, c.subject, extract(epoch from c.at)::double precision from (
            (select * from notifier.access_change n where n.xid >= pg_snapshot_xmax(known) order by n.xid limit max_rows)
            union all
            (select o.* from pg_snapshot_xip(known) x (xid) join notifier.access_change o using (xid) limit max_rows)
        ) c order by c.id limit max_rows;
end $$;

revoke execute on function
    notifier.note_access, notifier.revoke, notifier.access_changed, notifier.check_subject, notifier.key_changed,
    notifier.revoked_at_commit, notifier.access_unseen, notifier.access_changes
from public;
