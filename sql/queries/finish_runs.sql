-- Writes the final status of runs that this worker holds, and tells their waiters in one notification. At most 200 runs, so that
-- the ids fit into it (8000 bytes).
--
-- Fenced: a run that was claimed again since, or is no longer running, is left as it is. Returns, for each run,
-- accepted = the row now stands as this fence wrote it. That is also true when the same call is repeated because the
-- client could not know whether the first had been committed. The first may even be committing still: hence the rows are locked
-- before they are looked at, which shows them as they are when the lock is had and not as the statement's snapshot has them.
-- Lock order: by run_id; ending a run then opens its session for the next (trigger).
with outcomes as (
    select * from unnest(:'run_ids'::uuid[], :'fences'::bigint[], :'statuses'::text[], :'outputs'::text[], :'content_types'::text[],
                         :'errors'::text[], :'metrics'::text[])
               as o (run_id, fence, status, output, content_type, error, metrics)),
found as materialized (
    select j.run_id, j.fence, j.status from outcomes o join pgrun.jobs j on j.run_id = o.run_id order by j.run_id for update of j),
ended as (
    update pgrun.jobs j
       set status = o.status, output = o.output::jsonb, content_type = coalesce(o.content_type, j.content_type),
           error = o.error::jsonb, metrics = o.metrics::jsonb, finished_at = now()
      from outcomes o join found f on f.run_id = o.run_id and f.fence = o.fence and f.status = 'running'
     where j.run_id = f.run_id
    returning j.run_id),
told as (
    select pg_notify('pgrun_done', string_agg(run_id::text, ',')) from ended having count(*) > 0)
select o.run_id, coalesce(f.fence = o.fence and f.status in ('running', o.status), false) as accepted
  from outcomes o
  left join found f on f.run_id = o.run_id
  left join told on true;
