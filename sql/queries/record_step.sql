-- Records a step of a run that a worker holds, and what the run has used until then. Append only: a repeat, because the client could
-- not know whether the first call had been committed, changes nothing. Returns what has been said to the run; no row: it is held by
-- somebody else. No call of the model is under way any more.
--
-- If its beginning was noted (begin_step.sql), the note goes.
--
-- Fenced by the update, whose lock on the run's row makes a claim by another worker wait: whatever that worker then reads of the
-- journal is complete.
with held as (
    update pgrun.jobs j
       set metrics = coalesce(nullif(:'metrics', '')::jsonb, j.metrics),
           call = null,
           begun = j.begun - :'number'::text
     where j.run_id = :'run_id'::uuid and j.fence = :'fence'::bigint and j.status = 'running'
    returning j.run_id, j.attempt, j.steering),
recorded as (
    insert into pgrun.steps (run_id, step, kind, name, attempt, data, duration)
    select run_id, :'number'::int, :'kind', :'name', attempt, :'data'::jsonb, :'duration'::float8 from held
    on conflict (run_id, step) do nothing)
select h.steering from held h;
