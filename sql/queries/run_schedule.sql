-- Submits a run of a schedule now, besides its ticks; repeated with the same :run_id it changes nothing. Raises PGR02 if there is none.
select pgrun.run_schedule(:'schedule', :'run_id'::uuid)::text as run_id;
