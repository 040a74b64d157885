-- A worker says for how many :seconds it will look for runs by itself, every few milliseconds: so long nobody who submits has to
-- wake it. 0: from now on it must be woken again. With :hands_over it wakes all others for its queues, because it leaves
-- to them what was submitted silently meanwhile. Who begins to be awake wakes them too: they see its promise then, and look
-- again when it ends (claim_runs.sql), for it may be killed before.
with before as materialized (
    select coalesce(awake_until > now(), false) as awake from pgrun.workers where worker_id = :'worker_id'::uuid),
worker as (
    update pgrun.workers
       set awake_until = case when :'seconds'::float8 > 0 then now() + make_interval(secs => :'seconds'::float8) end
     where worker_id = :'worker_id'::uuid and stopped_at is null
    returning queues)
select count(case when :'hands_over'::boolean or (:'seconds'::float8 > 0 and not before.awake) then pg_notify('pgrun_soon', queue) end)
  from before, worker, unnest(worker.queues) as queue;
