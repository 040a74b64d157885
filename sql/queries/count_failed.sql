-- How many runs retry_failed.sql would make due again. By index jobs_failed.
select count(*) as failed from pgrun.jobs j
 where j.status = 'error'
   and j.finished_at >= coalesce(now() - make_interval(secs => nullif(:'since', '')::float8), '-infinity')
   and (:'queue' = '' or j.queue = :'queue')
   and (:'name' = '' or j.name = :'name')
   and (:'error_type' = '' or j.error ->> 'type' = :'error_type');
