-- Keys, and the changes of access that servers follow.

-- Declared for the triggers below; stated in functions/access.sql, in the same transaction.
create function notifier.key_changed() returns trigger language plpgsql as 'begin end';

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
