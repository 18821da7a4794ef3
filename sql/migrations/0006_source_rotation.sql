-- When all secrets of a source but the first stop counting; null: they count for good.
alter table notifier.source add column old_until timestamptz;
