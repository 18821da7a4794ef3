-- Cheaper for those who write: Postgres reads all checks of a table anew in each statement that inserts into it, and with
-- a dozen of them that took longer than all the rest. So the outbox has one check, in PL/pgSQL, which keeps its plans.

-- Declared for the check below; stated in functions/outbox.sql, in the same transaction.
create function notifier.may_enter(
    id bigint, topic text, data json, body bytea, content_type text, title text, click text, priority int, tags text[]
) returns boolean language sql immutable return null::boolean;

-- Not for the rows that are there: none of them may stop the pump.
alter table notifier.outbox
    drop constraint "id is given by the outbox",
    drop constraint "topic is not a topic",
    drop constraint "data must be given",
    drop constraint "content_type goes with body",
    drop constraint "content_type is malformed",
    drop constraint "body is not JSON",
    drop constraint "not every reader can read this JSON",
    drop constraint "message is larger than 16 MiB",
    drop constraint "title has 1 to 1000 characters",
    drop constraint "click has 1 to 2000 characters",
    drop constraint "priority is 1 to 5",
    drop constraint "tags are 1 to 32 of 1 to 100 characters",
    add constraint "may enter" check (
        notifier.may_enter(id, topic, data, body, content_type, title, click, priority, tags)
    ) not valid;

-- Row changes of watched tables, as their triggers find them: the pump makes messages of them, many at a time, which
-- takes a fraction of what it takes in each transaction of a writer. Only those triggers write here, and whatever a row
-- holds, the pump gets on. Ids are those of the outbox: so both have one order.
create table notifier.change (
    id bigint primary key default nextval('notifier.outbox_id_seq'),
    topic text not null,                   -- a template: orders/{id}
    shown text[] not null,                 -- the columns that are shown; empty: all
    new_row json,                          -- null: it was deleted
    old_row json                           -- null: it was inserted
);
alter table notifier.change alter column new_row set storage external, alter column old_row set storage external;
alter table notifier.change set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);
create constraint trigger outbox_wake after insert on notifier.change
    deferrable initially deferred for each row execute function notifier.outbox_wake();

-- Until when (ms since 1970) the pump has promised to look again. A sequence, because it must be seen at once and leave
-- no dead rows; unlogged, because it is worth nothing after a crash.
create unlogged sequence notifier.pump_awake minvalue 0;

-- They have other arguments and results now.
drop function if exists notifier.row_messages(text[], int, text[], json, json);
drop function if exists notifier.row_topic(text[], int, json);
drop function if exists notifier.row_message(text, json, json);
