-- Notes that a step begins whose repeat would do harm, and how often it has begun by now: should its end never be recorded, whoever
-- takes the run over asks a person instead of calling again. The record of the step takes the note back (record_step.sql).
--
-- Fenced like it. Steps that are begun side by side add to each other's notes; a repeat writes the same. No row: the claim was stale.
update pgrun.jobs j
   set begun = coalesce(j.begun, '{}')
               || jsonb_build_object(:'number'::text, jsonb_build_object('name', :'name'::text, 'times', :'times'::int, 'at', now()))
 where j.run_id = :'run_id'::uuid and j.fence = :'fence'::bigint and j.status = 'running'
returning j.run_id;
