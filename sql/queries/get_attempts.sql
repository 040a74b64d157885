-- What went wrong with a run, the oldest first: attempts that failed, took too long, or were lost with their worker.
select attempt, outcome, error_type, message, started_at, duration, retry_delay, worker_id, traceback
  from pgrun.attempts where run_id = :'run_id'::uuid order by fence;
