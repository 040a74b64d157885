-- Makes a run due again after a failed attempt, :delay seconds from now, and keeps the error; empty :metrics leaves the row's
-- own. With :keeps_call the next attempt takes up the call of the model that is under way, else it makes a new one. Fenced like finish. If someone
-- asked to cancel it meanwhile, it is cancelled instead. Returns the status it has now; no row: the claim was stale.
with made_due as (
    update pgrun.jobs j
       set status = case when j.cancel_requested_at is null then 'pending' else 'cancelled' end,
           finished_at = case when j.cancel_requested_at is null then null else now() end,
           due_at = now() + make_interval(secs => :'delay'::float8),
           call = case when :'keeps_call'::boolean then j.call end,
           error = :'error'::jsonb, metrics = coalesce(nullif(:'metrics', '')::jsonb, j.metrics)
     where j.run_id = :'run_id'::uuid and j.fence = :'fence'::bigint and j.status = 'running'
    returning j.run_id, j.status, j.queue),
told as (
    select case when status <> 'pending' then pg_notify('pgrun_done', run_id::text)
                else pg_notify(case when :'delay'::float8 > 0 then 'pgrun_soon' else 'pgrun_wake' end, queue) end
      from made_due)
select status from made_due, told;
