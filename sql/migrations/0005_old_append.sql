-- append() and append_and_flush() as they were before keys: no version that was released calls them.
drop function if exists notifier.append(text[], bytea[], text[], text[], text[], bigint);
drop procedure if exists
    notifier.append_and_flush(text[], bytea[], text[], text[], text[], bigint, bigint, bigint, timestamptz);
