-- Tokens count as revoked up to the commit of their revocation, and not up to its call.

-- Declared for the trigger below; stated in functions/access.sql, in the same transaction.
create function notifier.revoked_at_commit() returns trigger language plpgsql as 'begin end';

create constraint trigger revoked_at_commit after insert on notifier.access_change
    deferrable initially deferred
    for each row when (new.kind = 'revoked') execute function notifier.revoked_at_commit();
