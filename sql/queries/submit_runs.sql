-- Inserts many runs of one task that differ in their input only: all of them, or none. The run_ids are made by the client, so a
-- repeat after a lost connection inserts nothing twice. Returns one row: whether the queue exists; if not, nothing was inserted.
with known as materialized (
    select from pgrun.queues where queue = :'queue'),
inserted as (
    insert into pgrun.jobs (run_id, kind, name, queue, session_id, session_table, parent_run_id, priority, due_at, max_attempts,
                            input, definition, output_schema, content_type, metadata)
    select r.run_id, :'kind', :'name', :'queue', nullif(:'session_id', ''), nullif(:'session_table', ''),
           nullif(:'parent_run_id', '')::uuid, :'priority'::smallint, now() + make_interval(secs => :'delay'::float8), :'max_attempts'::smallint,
           r.input::jsonb, nullif(:'definition', '')::jsonb, nullif(:'output_schema', '')::jsonb, nullif(:'content_type', ''),
           :'metadata'::jsonb
      from known, unnest(:'run_ids'::uuid[], :'inputs'::text[]) as r (run_id, input)
    on conflict (run_id) do nothing)
select exists (select from known) as queue_known;
