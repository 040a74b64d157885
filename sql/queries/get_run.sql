-- The whole row of one run; no row when there is no such run.
select * from pgrun.jobs where run_id = :'run_id'::uuid;
