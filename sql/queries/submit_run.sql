-- Inserts one run. The run_id is made by the client, so a repeat after a lost connection inserts nothing twice.
--
-- Returns one row: whether the queue exists (if not, nothing was inserted), whether a live daemon will execute the run, and
-- the row as inserted (nulls when a run with this id was there before). A daemon can execute it if it serves the queue and
-- either the definition travels with the run or the worker has imported the name. Triggers number the run within its session and wake workers.
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
    returning *)
select exists (select from known) as queue_known,
       exists (select from pgrun.workers w
                where w.mode = 'daemon' and w.stopped_at is null and w.lease_until > now() and not w.draining
                  and :'queue' = any (w.queues)
                  and (nullif(:'definition', '') is not null or :'name' = any (w.names))) as served,
       i.*
  from (select) one left join inserted i on true;
