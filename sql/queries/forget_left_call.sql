-- A provider works no longer on this answer.
delete from pgrun.left_calls where run_id = :'run_id'::uuid and response_id = :'response_id';
