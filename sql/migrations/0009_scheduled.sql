-- What is published later has a table of its own: so the pump's walk through the outbox steps over none of it, and a
-- vacuum of the outbox, the table with churn, reads no index of it. Columns and checks are those of the outbox.
create table notifier.scheduled (
    like notifier.outbox including identity including constraints including storage,
    at timestamptz not null,
    primary key (id),
    -- From the beginning of the times that the pump can read. (Of the future it reads what is due.)
    constraint "at is a time" check (isfinite(at) and at >= '0001-01-01 00:00:00+00')
);
alter table notifier.scheduled rename constraint "id is given by the outbox" to "id is given by the table";
alter table notifier.scheduled set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index scheduled_due on notifier.scheduled (at, id);

-- As with the outbox: what is inserted returns its id, with which it can be taken back.
grant select (id) on notifier.scheduled to public;
