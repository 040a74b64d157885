-- Inserts one run. The run_id is made by the client, so a repeat after a lost connection inserts nothing twice. Triggers number the
-- run within its session, do what :multitask says should that be busy (PGR03: the run is rejected), and wake workers. Whether the
-- queue exists is asked before, once per process and queue (find_queue.sql).
--
-- Returns when it was created; no row if a run with this id was there before.
insert into pgrun.jobs (run_id, kind, name, queue, session_id, session_table, multitask, parent_run_id, priority, due_at, max_attempts,
                        input, definition, output_schema, content_type, metadata, streams, context, concurrency_key, weight)
values (:'run_id'::uuid, :'kind', :'name', :'queue', nullif(:'session_id', ''), nullif(:'session_table', ''), nullif(:'multitask', ''),
        nullif(:'parent_run_id', '')::uuid, :'priority'::smallint, now() + make_interval(secs => :'delay'::float8), :'max_attempts'::smallint,
        :'input'::jsonb, nullif(:'definition', '')::jsonb, nullif(:'output_schema', '')::jsonb, nullif(:'content_type', ''),
        :'metadata'::jsonb, :'streams'::boolean, nullif(:'context', '')::jsonb, nullif(:'concurrency_key', ''), nullif(:'weight', '')::int)
on conflict (run_id) do nothing
returning created_at;
