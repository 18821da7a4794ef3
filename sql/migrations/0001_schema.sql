-- The tables. The functions are in functions/, which is applied again whenever its text changes.
--
-- seq is drawn only by notifier.append(), under one lock that is released after the rows have become visible. So seq
-- order is commit order, and a reader that has seen n has seen everything below n. A transaction of a user never takes
-- that lock: it inserts into the outbox, and a server's pump moves the row after the commit.

-- Declared for the constraints and the triggers below; stated in functions/, in the same transaction.
create function notifier.is_topic(name text) returns boolean language sql immutable return null::boolean;
create function notifier.are_tags(tags text[]) returns boolean language sql immutable return null::boolean;
create function notifier.is_readable_json(data text) returns boolean language sql immutable return null::boolean;
create function notifier.is_json(body bytea) returns boolean language sql immutable return null::boolean;
create function notifier.is_json_type(content_type text) returns boolean language sql immutable return null::boolean;
create function notifier.is_content_type(content_type text) returns boolean language sql immutable return null::boolean;
create function notifier.may_enter(
    id bigint, topic text, data json, body bytea, content_type text, title text, click text, priority int, tags text[]
) returns boolean language sql immutable return null::boolean;
create function notifier.outbox_begin() returns trigger language plpgsql as 'begin end';
create function notifier.outbox_wake() returns trigger language plpgsql as 'begin end';
create function notifier.key_changed() returns trigger language plpgsql as 'begin end';
create function notifier.revoked_at_commit() returns trigger language plpgsql as 'begin end';

-- The log

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

-- What was published with an idempotency key: an Idempotency-Key over HTTP, or the delivery id of a webhook. A row is
-- written in the transaction that appends its messages, under the order lock, so both are there or neither. It counts
-- for longer than its messages may be kept.
create table notifier.idempotency (
    seq bigint primary key,                -- of the first of its messages; the others follow without a hole
    key bytea not null unique,             -- a hash of caller or source, and key
    digest bytea,                          -- of the request; null: the key alone tells
    time timestamptz not null              -- of its messages
);

-- One row: what retention has deleted. Everything up to deleted_seq is gone; topics that were forgotten altogether had
-- their last message at or below forgotten_seq; of idempotency, everything up to idempotency_seq is gone.
create table notifier.retention (
    id int primary key check (id = 1),     -- a publication of all tables needs a key of each that is updated
    deleted_seq bigint not null,
    forgotten_seq bigint not null,
    idempotency_seq bigint not null default 0
);
insert into notifier.retention values (1, 0, 0);

-- Locks: tables that only their owner can lock, in share update exclusive mode. Any role that may connect can hold an
-- advisory lock and so stop all others. The tables have no rows, and so no vacuums that would take the same lock.
create table notifier.order_lock ();    -- appending, one transaction after another
create table notifier.pump_lock ();     -- tried: one server pumps at a time (the one that prunes locks the row of retention)
create table notifier.wake_lock ();     -- tried: one of the transactions that commit together notifies for all
create table notifier.wake_lock_2 ();   -- in its place, while a transaction holds that one for long

-- The lives of this database. Ids from start_seq + 1 to last_seq (null: so far) were issued in this one.
create table notifier.epoch (
    start_seq bigint primary key,
    last_seq bigint,
    system_identifier bigint not null,
    timeline int not null,
    database oid not null,                 -- a restored dump has other ones
    relation oid not null,
    time timestamptz not null default clock_timestamp()
);

-- Publishing from SQL

-- Where SQL publishers write. What is malformed fails here, in the caller's own statement: one bad row must never stop
-- the pump. Exactly one of data (JSON) and body (anything, with its content type) is given.
--
-- Postgres reads all checks of a table anew in each statement that inserts into it, and with a dozen of them that took
-- longer than all the rest. So there is one check, in PL/pgSQL, which keeps its plans.
create table notifier.outbox (
    id bigint generated always as identity primary key,
    topic text not null,
    data json,
    body bytea,
    content_type text,
    title text,
    click text,
    priority int,
    tags text[],
    constraint "may enter" check (
        notifier.may_enter(id, topic, data, body, content_type, title, click, priority, tags)
    )
);
alter table notifier.outbox alter column data set storage external, alter column body set storage external;
-- One of the tables with churn.
alter table notifier.outbox set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- What is inserted returns its id to any role that may insert, as mappers of objects to tables want it.
grant select (id) on notifier.outbox to public;

create trigger outbox_begin before insert on notifier.outbox
    for each statement execute function notifier.outbox_begin();
create constraint trigger outbox_wake after insert on notifier.outbox
    deferrable initially deferred for each row execute function notifier.outbox_wake();

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

-- Publishing later

-- A table of its own: so the pump's walk through the outbox steps over none of it, and a vacuum of the outbox reads no
-- index of it. What is malformed fails here, as there.
create table notifier.scheduled (
    like notifier.outbox including identity including storage,
    at timestamptz not null,
    primary key (id),
    constraint "id is given by the table" check (id > 0),
    constraint "topic is not a topic" check (notifier.is_topic(topic)),
    constraint "data must be given" check ((data is null) <> (body is null)),
    constraint "content_type goes with body" check ((body is null) = (content_type is null)),
    constraint "content_type is malformed" check (notifier.is_content_type(content_type)),
    -- It would be spliced into the answers of all others.
    constraint "body is not JSON" check (content_type is null or not notifier.is_json_type(content_type) or notifier.is_json(body)),
    -- Checks are made in the order of their names: this one after the next.
    constraint "not every reader can read this JSON" check (notifier.is_readable_json(data::text)),
    constraint "message is larger than 16 MiB" check (coalesce(octet_length(data::text), octet_length(body)) <= 16777216),
    constraint "title has 1 to 1000 characters" check (length(title) between 1 and 1000),
    constraint "click has 1 to 2000 characters" check (length(click) between 1 and 2000),
    constraint "priority is 1 to 5" check (priority between 1 and 5),
    constraint "tags are 1 to 32 of 1 to 100 characters" check (notifier.are_tags(tags)),
    -- From the beginning of the times that the pump can read. (Of the future it reads what is due.)
    constraint "at is a time" check (isfinite(at) and at >= '0001-01-01 00:00:00+00')
);
alter table notifier.scheduled set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index scheduled_due on notifier.scheduled (at, id);

-- As with the outbox: what is inserted returns its id, with which it can be taken back.
grant select (id) on notifier.scheduled to public;

-- What was scheduled with an Idempotency-Key. The keys of what is published now are apart: they go with the log, by seq.
create table notifier.scheduled_key (
    key bytea primary key,                 -- a hash of caller and key
    digest bytea not null,                 -- of the request
    scheduled_id bigint not null,          -- what it was answered
    at timestamptz not null,
    time timestamptz not null default clock_timestamp()
);
create index scheduled_key_time on notifier.scheduled_key (time);

-- Webhooks

-- Configured senders of webhooks: POST /hooks/{name}.
create table notifier.source (
    name text collate "C" primary key,
    scheme text not null,
    topic text not null,        -- a template such as github/{repository.full_name}
    secrets text[] not null,    -- any of them may have signed; two while one is being replaced
    old_until timestamptz,      -- when all secrets but the first stop counting; null: they count for good
    options json not null default '{}',  -- header=X-Signature, url=https://example.com/hooks/sms
    created timestamptz not null default clock_timestamp()
);

-- Access

-- Keys of callers. The key itself is nowhere: 190 random bits need no slow hash.
create table notifier.key (
    id text collate "C" primary key,                -- a part of the key, which may be shown
    name text collate "C" not null unique,
    hash bytea not null,                            -- SHA-256 of the whole key
    publish text[] not null default '{}',           -- topics and patterns
    subscribe text[] not null default '{}',
    admin boolean not null default false,           -- everything, whatever the two say
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    used_at timestamptz,                            -- to the minute
    constraint "name has 1 to 100 characters" check (length(name) between 1 and 100),
    constraint "hash is a SHA-256" check (octet_length(hash) = 32)
);

-- used_at is no change.
create trigger key_changed
    after insert or delete or truncate or update of id, name, hash, publish, subscribe, admin, created_at, expires_at
    on notifier.key for each statement execute function notifier.key_changed();

-- What has changed since a snapshot are the rows whose transactions that snapshot did not show. Rows are only inserted:
-- no transaction waits for another's. They go when every token that could be meant has expired.
create table notifier.access_change (
    id bigint generated always as identity primary key,
    xid xid8 not null default pg_current_xact_id(),
    first boolean not null,                         -- of its transaction
    at timestamptz not null default clock_timestamp(),
    kind text not null,
    subject text collate "C",
    constraint "kind is one of three" check (kind in ('key', 'revoked', 'changed')),
    constraint "subject has 1 to 255 characters" check (length(subject) between 1 and 255),
    constraint "subject goes with the kind" check ((kind = 'key') = (subject is null))
);
-- Servers ask whether there is a change with every message. One entry for each transaction answers that: those of one
-- that makes very many, and has not ended, would have to be stepped over each time.
create unique index access_change_first on notifier.access_change (xid) where first;
create index access_change_xid on notifier.access_change (xid);
create index access_change_revoked on notifier.access_change (id) where kind = 'revoked';

-- Tokens count as revoked up to the commit of their revocation, and not up to its call.
create constraint trigger revoked_at_commit after insert on notifier.access_change
    deferrable initially deferred
    for each row when (new.kind = 'revoked') execute function notifier.revoked_at_commit();
