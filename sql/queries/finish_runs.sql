-- Writes the final status of runs that a worker holds, and tells their waiters, 200 ids to a notification (8000 bytes at most).
--
-- :endings is one JSON object, {run_id: {"fence": …, "status": …, "output": …, "content_type": …, "error": …, "metrics": …, "tools": …, "call": …,
-- "heard": …}};
-- what is left out is null, for content_type and metrics as it was. One object and no arrays that are joined: the planner knows nothing of
-- the sizes of arrays, and a nested loop over two of them costs five times as much as all the rest.
--
-- With a "call", whatever it is, the call of the model that is under way stays in the row, and so somebody stops it at the
-- provider (_leave_call).
--
-- Fenced: a run that was claimed again since, or is no longer running, is left as it is; and so is one that would complete although
-- more was said to it than it has heard, which release_unheard.sql is for. Returns the runs that were ended. For
-- a repeat, because the client could not know whether the first call had been committed, find_endings.sql tells which
-- stand already. The update has waited for the first by then, should it still have been committing.
-- The coalesce hides the condition from jobs_running: the planner would now and then walk all running runs for the sake of one.
-- Lock order: by run_id (the index scan sorts the array); ending a run then opens its session for the next (trigger).
with given as materialized (
    select :'endings'::jsonb as endings),
ended as (
    update pgrun.jobs j
       set (status, output, content_type, error, metrics, tools, call, finished_at) = (
            select e ->> 'status', e -> 'output', coalesce(e ->> 'content_type', j.content_type), e -> 'error',
                   coalesce(e -> 'metrics', j.metrics), e -> 'tools', case when e ? 'call' then j.call end, now()
              from (select (select endings from given) -> j.run_id::text) as ending (e))
     where j.run_id = any (array(select jsonb_object_keys(endings)::uuid from given))
       and j.fence = ((select endings from given) -> j.run_id::text ->> 'fence')::bigint
       and coalesce(j.status = 'running', false)
       and (j.steering is null or (select endings from given) -> j.run_id::text ->> 'status' <> 'completed'
            or jsonb_array_length(j.steering) <= coalesce(((select endings from given) -> j.run_id::text ->> 'heard')::int, 0))
    returning j.run_id),
told as (
    select count(pg_notify('pgrun_done', ids))
      from (select string_agg(run_id::text, ',') as ids
              from (select run_id, (row_number() over () - 1) / 200 as part from ended) e group by part) parts)
select e.run_id::text from ended e, told;
