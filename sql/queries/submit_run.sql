-- Inserts one run. The run_id is made by the client, so a repeat after a lost connection inserts nothing twice.
--
-- Returns one row: whether the queue exists (if not, nothing was inserted), and when the run was created (null when a run with this
-- id was there before). Triggers number the run within its session and wake workers.
with known as materialized (
    select from pgrun.queues where queue = :'queue'),
inserted as (
    insert into pgrun.jobs (run_id, kind, name, queue, session_id, session_table, parent_run_id, priority, due_at, max_attempts,
                            input, definition, output_schema, content_type, metadata)
    select :'run_id'::uuid, :'kind', :'name', :'queue', nullif(:'session_id', ''), nullif(:'session_table', ''),
           nullif(:'parent_run_id', '')::uuid, :'priority'::smallint, now() + make_interval(secs => :'delay'::float8), :'max_attempts'::smallint,
           :'input'::jsonb, nullif(:'definition', '')::jsonb, nullif(:'output_schema', '')::jsonb, nullif(:'content_type', ''),
           :'metadata'::jsonb
      from known
    on conflict (run_id) do nothing
    returning created_at)
select exists (select from known) as queue_known, (select created_at from inserted) as created_at;
