-- What differs from source to source of one scheme: header=X-Signature, url=https://example.com/hooks/sms.
alter table notifier.source add column options json not null default '{}';
