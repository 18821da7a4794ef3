-- Content types by the grammar of RFC 9110, as over HTTP: a browser would take the last type of a list for the message's.

-- Declared for the constraint below; stated in functions/outbox.sql, in the same transaction.
create function notifier.is_content_type(content_type text) returns boolean language sql immutable return null::boolean;

-- Not for the rows that are there: none of them may stop the pump.
alter table notifier.outbox
    drop constraint "content_type is malformed",
    add constraint "content_type is malformed" check (notifier.is_content_type(content_type)) not valid;
