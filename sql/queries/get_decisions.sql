-- What a run has waited for people for, with their decisions, and which calls may have happened; for an attempt that takes over.
select requirements, begun from pgrun.jobs where run_id = :'run_id'::uuid;
