-- Decides on calls that a paused run waits for. :decision is one JSON object with the parameters of pgrun.approve beside run_id that
-- are not to be left at their default: {"call_id": …, "approved": …, "note": …, "result": …, "input": …, "decision_id": …,
-- "decided_by": …}; without the last it is the role that has logged in.
-- Returns the status of the run then: pending if nothing is open any more, else paused.
select pgrun.approve(:'run_id'::uuid, d ->> 'call_id', coalesce((d ->> 'approved')::boolean, true), d ->> 'note', d ->> 'result',
                     d -> 'input', (d ->> 'decision_id')::uuid, d ->> 'decided_by') as status
  from (select :'decision'::jsonb) as given (d);
