-- The call of the model that was under way when an attempt ended or died, for the one that takes over; no row: none.
select (call ->> 'step')::int as step, call ->> 'response_id' as response_id
  from pgrun.jobs where run_id = :'run_id'::uuid and call is not null;
