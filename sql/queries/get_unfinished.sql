-- What earlier attempts have left unfinished, for the one that takes over: what the run has waited for people for, with their
-- decisions; which calls may have happened; and the call of the model that was under way, null if none was.
select requirements, begun,
       case when call is not null
            then jsonb_build_object('step', (call ->> 'step')::int, 'response_id', call ->> 'response_id') end as call
  from pgrun.jobs where run_id = :'run_id'::uuid;
