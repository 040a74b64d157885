-- A worker says for how many :seconds it will look for runs by itself, every few milliseconds: so long nobody who submits has to
-- wake it. 0: from now on it must be woken again. With :hands_over it wakes all others for its queues, because it leaves
-- to them what was submitted silently meanwhile.
with worker as (
    update pgrun.workers
       set awake_until = case when :'seconds'::float8 > 0 then now() + make_interval(secs => :'seconds'::float8) end
     where worker_id = :'worker_id'::uuid and stopped_at is null
    returning queues)
select count(case when :'hands_over'::boolean then pg_notify('pgrun_wake', queue) end) from worker, unnest(worker.queues) as queue;
