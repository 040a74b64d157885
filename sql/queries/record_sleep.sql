-- Records that a run, which a worker holds, sleeps for :seconds from now, by the database's clock, as step :number of its journal.
-- Append only: a repeat, because the client could not know whether the first call had been committed, changes nothing.
--
-- Fenced by the lock on the run's row, which makes a claim by another worker wait: what that worker then reads of the journal is
-- complete. Returns in how many seconds the sleep ends; no row: the run is held by somebody else.
with held as materialized (
    select j.run_id, j.attempt
      from pgrun.jobs j
     where j.run_id = :'run_id'::uuid and j.fence = :'fence'::bigint and j.status = 'running'
       for no key update),
recorded as (
    insert into pgrun.steps (run_id, step, kind, name, attempt, data, duration)
    select run_id, :'number'::int, 'sleep', :'name', attempt,
           jsonb_build_object('until', now() + make_interval(secs => :'seconds'::float8)), :'seconds'::float8
      from held
    on conflict (run_id, step) do nothing
    returning data)
select extract(epoch from (coalesce(r.data, s.data) ->> 'until')::timestamptz - now())::float8 as remaining
  from held h
  left join recorded r on true
  left join pgrun.steps s on s.run_id = h.run_id and s.step = :'number'::int;
