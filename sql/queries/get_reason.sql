-- Why a run does not run, in words; null when there is no such run.
select pgrun.why(:'run_id'::uuid) as why;
