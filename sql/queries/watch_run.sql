-- Somebody begins to read the events of a run. Returns its status.
select pgrun.watch(:'run_id'::uuid) as status;
