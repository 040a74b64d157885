-- Makes at most :batch runs that ended in error due again, on a person's word; only those of one :queue, :name and :error_type, and
-- that ended within the last :since seconds, unless these are empty. Called again and again with the same :until, which the first
-- call leaves empty and gets back, until it retries none: so what fails again meanwhile is left alone.
-- By index jobs_failed.
select u.until, pgrun.retry_many(nullif(:'queue', ''), nullif(:'name', ''), nullif(:'error_type', ''),
                                 make_interval(secs => nullif(:'since', '')::float8), u.until, :'batch'::int) as retried
  from (select coalesce(nullif(:'until', '')::timestamptz, now())) as u (until);
