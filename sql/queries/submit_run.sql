-- Inserts one run. The run_id is made by the client, so a repeat after a lost connection inserts nothing twice. Triggers number the
-- run within its session and wake workers.
--
-- Returns when it was created. No row: nothing was inserted, because the queue does not exist or because a run with this id was there
-- before; find_queue.sql tells which.
insert into pgrun.jobs (run_id, kind, name, queue, session_id, session_table, parent_run_id, priority, due_at, max_attempts,
                        input, definition, output_schema, content_type, metadata)
select :'run_id'::uuid, :'kind', :'name', queue, nullif(:'session_id', ''), nullif(:'session_table', ''),
       nullif(:'parent_run_id', '')::uuid, :'priority'::smallint, now() + make_interval(secs => :'delay'::float8), :'max_attempts'::smallint,
       :'input'::jsonb, nullif(:'definition', '')::jsonb, nullif(:'output_schema', '')::jsonb, nullif(:'content_type', ''),
       :'metadata'::jsonb
  from pgrun.queues where queue = :'queue'
on conflict (run_id) do nothing
returning created_at;
