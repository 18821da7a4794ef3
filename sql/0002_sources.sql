-- Configured senders of webhooks: POST /hooks/{name}.

create table notifier.source (
    name text collate "C" primary key,
    scheme text not null,
    topic text not null,        -- a template such as github/{repository.full_name}
    secrets text[] not null,    -- any of them may have signed; two while one is being replaced
    created timestamptz not null default clock_timestamp()
);
