-- The number of the last event of each run, 0 where there is none: from there a worker counts on. Nobody else adds to a run while
-- the worker holds it; so what is read here after the claim stays true.
select r.run_id::text, coalesce((select max(e.seq) from pgrun.events e where e.run_id = r.run_id), 0) as last
  from unnest(:'run_ids'::uuid[]) as r (run_id);
