-- Gives a run back whose end was refused, because something was said to it that it has not heard (finish_runs.sql): it is due at once,
-- and no attempt is used up. Its last answer becomes a step of the journal, for the next attempt goes on from there; empty :number:
-- it is one already. No call of the model is under way any more. Fenced like finish; a requested cancel is carried out.
-- Returns its status; no row: that was not the reason.
with given_back as (
    update pgrun.jobs j
       set status = case when j.cancel_requested_at is null then 'pending' else 'cancelled' end,
           finished_at = case when j.cancel_requested_at is null then null else now() end,
           attempt = greatest(j.attempt - 1, 0), due_at = now(), call = null,
           metrics = coalesce(nullif(:'metrics', '')::jsonb, j.metrics)
     where j.run_id = :'run_id'::uuid and j.fence = :'fence'::bigint and j.status = 'running'
       and jsonb_array_length(j.steering) > :'heard'::int
    returning j.run_id, j.queue, j.status, j.attempt),
recorded as (
    insert into pgrun.steps (run_id, step, kind, name, attempt, data, duration)
    select run_id, nullif(:'number', '')::int, :'kind', :'name', attempt + 1, nullif(:'data', '')::jsonb, :'duration'::float8
      from given_back where nullif(:'number', '') is not null
    on conflict (run_id, step) do nothing),
told as (
    select case when status = 'pending' then pg_notify('pgrun_wake', queue) else pg_notify('pgrun_done', run_id::text) end from given_back)
select status from given_back, told;
