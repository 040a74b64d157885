-- Inserts many runs of one task that differ in their input only: all of them, or none. The run_ids are made by the client, so a
-- repeat after a lost connection inserts nothing twice. Whether the queue exists is asked before (find_queue.sql).
-- :inputs is one JSON array, in the order of :run_ids.
insert into pgrun.jobs (run_id, kind, name, queue, session_id, priority, due_at, max_attempts, input, metadata,
                        concurrency_key, weight)
select r.run_id, 'task', :'name', :'queue', nullif(:'session_id', ''), :'priority'::smallint,
       now() + make_interval(secs => :'delay'::float8), :'max_attempts'::smallint, r.input, :'metadata'::jsonb,
       nullif(:'concurrency_key', ''), nullif(:'weight', '')::int
  from rows from (unnest(:'run_ids'::uuid[]), jsonb_array_elements(:'inputs'::jsonb)) as r (run_id, input)
on conflict (run_id) do nothing;
