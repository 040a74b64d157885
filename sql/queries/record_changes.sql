-- Records a step as record_step.sql does, together with what it changes in the state of the run's session (:changes, see
-- pgrun._change_state): both or neither. Returns what has been said to the run, and the state; no row: it is held by somebody else.
select said, new_state
  from pgrun._keep_step(:'run_id'::uuid, :'fence'::bigint, :'number'::int, :'kind', :'name', :'data'::jsonb, :'duration'::float8,
                        nullif(:'metrics', '')::jsonb, :'changes'::jsonb);
