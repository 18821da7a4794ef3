-- Where scans of whole tables are off, Postgres before 18 adds a prohibitive cost to those that cannot be avoided (of
-- retention's one row), and compiles the statement because it seems so dear: 50 ms for each publish instead of half a
-- millisecond.
alter function notifier.append set jit = off;
alter function notifier.pump set jit = off;
alter function notifier.retain set jit = off;
