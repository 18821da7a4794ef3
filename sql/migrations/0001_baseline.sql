-- The log of messages, the outbox that SQL publishers write to, and what belongs to them: tables only. The functions are
-- in functions/, which is applied again whenever its text changes.
--
-- seq is drawn only by notifier.append(), under one lock that is released after the rows have become visible. So seq
-- order is commit order, and a reader that has seen n has seen everything below n. A transaction of a user never takes
-- that lock: it inserts into the outbox, and a server's pump moves the row after the commit.

-- Declared for the constraints and the triggers below; stated in functions/outbox.sql, in the same transaction.
create function notifier.is_topic(name text) returns boolean language sql immutable return null::boolean;
create function notifier.are_tags(tags text[]) returns boolean language sql immutable return null::boolean;
create function notifier.is_readable_json(data text) returns boolean language sql immutable return null::boolean;
create function notifier.is_json(body bytea) returns boolean language sql immutable return null::boolean;
create function notifier.is_json_type(content_type text) returns boolean language sql immutable return null::boolean;
create function notifier.outbox_begin() returns trigger language plpgsql as 'begin end';
create function notifier.outbox_wake() returns trigger language plpgsql as 'begin end';

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
    id int primary key check (id = 1),     -- a publication of all tables needs a key of each that is updated
    deleted_seq bigint not null,
    forgotten_seq bigint not null
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

-- Where SQL publishers write. What is malformed fails here, in the caller's own statement: one bad row must never stop
-- the pump. Exactly one of data (JSON) and body (anything, with its content type) is given.
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
    constraint "id is given by the outbox" check (id > 0),
    constraint "topic is not a topic" check (notifier.is_topic(topic)),
    constraint "data must be given" check ((data is null) <> (body is null)),
    constraint "content_type goes with body" check ((body is null) = (content_type is null)),
    constraint "content_type is malformed" check (content_type ~ '^[!-~]+/[ -~]+$' and length(content_type) <= 255),
    -- It would be spliced into the answers of all others.
    constraint "body is not JSON" check (content_type is null or not notifier.is_json_type(content_type) or notifier.is_json(body)),
    -- Checks are made in the order of their names: this one after the next.
    constraint "not every reader can read this JSON" check (notifier.is_readable_json(data::text)),
    constraint "message is larger than 16 MiB" check (coalesce(octet_length(data::text), octet_length(body)) <= 16777216),
    constraint "title has 1 to 1000 characters" check (length(title) between 1 and 1000),
    constraint "click has 1 to 2000 characters" check (length(click) between 1 and 2000),
    constraint "priority is 1 to 5" check (priority between 1 and 5),
    constraint "tags are 1 to 32 of 1 to 100 characters" check (notifier.are_tags(tags))
);
alter table notifier.outbox alter column data set storage external, alter column body set storage external;
-- The one table with churn.
alter table notifier.outbox set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- What is inserted returns its id to any role that may insert, as mappers of objects to tables want it.
grant select (id) on notifier.outbox to public;

create trigger outbox_begin before insert on notifier.outbox
    for each statement execute function notifier.outbox_begin();
create constraint trigger outbox_wake after insert on notifier.outbox
    deferrable initially deferred for each row execute function notifier.outbox_wake();

-- Configured senders of webhooks: POST /hooks/{name}.

create table notifier.source (
    name text collate "C" primary key,
    scheme text not null,
    topic text not null,        -- a template such as github/{repository.full_name}
    secrets text[] not null,    -- any of them may have signed; two while one is being replaced
    created timestamptz not null default clock_timestamp()
);
