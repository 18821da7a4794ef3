-- What was scheduled with an Idempotency-Key. The keys of what is published now are apart: they go with the log, by seq.
create table notifier.scheduled_key (
    key bytea primary key,                 -- a hash of caller and key
    digest bytea not null,                 -- of the request
    scheduled_id bigint not null,          -- what it was answered
    at timestamptz not null,
    time timestamptz not null default clock_timestamp()
);
create index scheduled_key_time on notifier.scheduled_key (time);

-- It has other arguments now.
drop function if exists notifier.schedule(text, bytea, text, json, timestamptz, interval);
