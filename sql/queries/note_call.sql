-- Notes which call of the model is under way for a run that a worker holds: the :number of its step, and the :response_id under
-- which the provider goes on with it by itself; empty where only the intent to call is known. One takes the place of the one
-- before; a repeat changes nothing. Fenced like record_step. The column is in no index, so the row stays in its place (HOT).
-- Returns a row if the run is still held.
update pgrun.jobs j
   set call = jsonb_strip_nulls(jsonb_build_object('step', :'number'::int, 'response_id', nullif(:'response_id', '')))
 where j.run_id = :'run_id'::uuid and j.fence = :'fence'::bigint and j.status = 'running'
returning 1 as noted;
