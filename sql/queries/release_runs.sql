-- Gives runs back without using up an attempt: at shutdown, when the process cannot execute them, or when the provider has to be
-- waited for. They are due again :delay seconds from now. Fenced like finish; a requested cancel is carried out.
-- :error, a JSON object or empty, is put in the row so that people see why the run waits, :metrics what it has used until now;
-- empty leaves the row's own.
-- :keeps_call as in retry_run.sql; with :parks the run is given back because its provider has only queued the call, which is noted with
-- it.
-- Returns the runs that were given back.
with given_back as (
    update pgrun.jobs j
       set status = case when j.cancel_requested_at is null then 'pending' else 'cancelled' end,
           finished_at = case when j.cancel_requested_at is null then null else now() end,
           attempt = greatest(j.attempt - 1, 0),
           due_at = now() + make_interval(secs => :'delay'::float8),
           call = case when :'keeps_call'::boolean
                       then case when :'parks'::boolean then j.call || '{"queued": true}' else j.call - 'queued' end end,
           error = coalesce(nullif(:'error', '')::jsonb, j.error),
           metrics = coalesce(nullif(:'metrics', '')::jsonb, j.metrics)
      from unnest(:'run_ids'::uuid[], :'fences'::bigint[]) as r (run_id, fence)
     where j.run_id = r.run_id and j.fence = r.fence and j.status = 'running'
    returning j.run_id, j.queue, j.status),
woken as (
    select count(pg_notify(case when :'delay'::float8 > 0 then 'pgrun_soon' else 'pgrun_wake' end, queue))
      from (select distinct queue from given_back where status = 'pending') q),
told as (
    select count(pg_notify('pgrun_done', run_id::text)) from given_back where status = 'cancelled')
select g.run_id from given_back g, woken, told;
