-- What was published with an idempotency key: an Idempotency-Key over HTTP, or the delivery id of a webhook. A row is
-- written in the transaction that appends its messages, under the order lock, so both are there or neither. It counts
-- for longer than its messages may be kept.
create table notifier.idempotency (
    seq bigint primary key,                -- of the first of its messages; the others follow without a hole
    key bytea not null unique,             -- a hash of caller or source, and key
    digest bytea,                          -- of the request; null: the key alone tells
    time timestamptz not null              -- of its messages
);

-- Everything up to here is gone from it.
alter table notifier.retention add column idempotency_seq bigint not null default 0;
