-- Runs that the database says this worker holds, but that have been running for more than :older_than seconds: the worker
-- compares them with what it executes. One it does not know comes from a claim whose answer was lost with the
-- connection; it is released. Fresh claims are left out because their answer may still be under way.
select run_id, fence from pgrun.jobs
 where worker_id = :'worker_id'::uuid and status = 'running' and started_at < now() - make_interval(secs => :'older_than'::float8);
