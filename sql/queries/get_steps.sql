-- The journal of a run, for an attempt that takes over.
select step, kind, name, data, duration from pgrun.steps where run_id = :'run_id'::uuid order by step;
