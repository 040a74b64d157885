-- The heartbeat: moves the lease, and tells which of the worker's runs someone asked to cancel, and which somebody reads along
-- (lost notifications are made good here). No row: the worker has been declared dead, its runs belong to others, it must stop them.
-- :blocked is for how many seconds the worker's event loop has not run, 0 when it runs.
update pgrun.workers w
   set heartbeat_at = now(), lease_until = now() + w.lease, draining = :'draining'::boolean,
       blocked_since = case when :'blocked'::float8 > 0 then now() - make_interval(secs => :'blocked'::float8) end
 where w.worker_id = :'worker_id'::uuid and w.stopped_at is null
returning array(select j.run_id from pgrun.jobs j
                 where j.worker_id = w.worker_id and j.status = 'running' and j.cancel_requested_at is not null) as cancels,
          array(select j.run_id from pgrun.jobs j
                 where j.worker_id = w.worker_id and j.status = 'running' and j.streams) as streams;
