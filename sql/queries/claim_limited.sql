-- Takes up to :slots due runs of one queue that has limits, or whose runs have keys that take turns: claim_runs.sql leaves those alone, and
-- says which they are. What a worker can execute, :names and :yields, is as there. The function says how, and in which order it locks.
--
-- Returns one row per claimed run, JSON as text, and one with run_id null whose next_look says in how many seconds to look again:
-- when the rate lets the next run start, or the next will be due; null: when somebody says so (pgrun_wake), because there is
-- room again or something new. In that row, waited says for how many seconds the claim has waited for those of other workers.
select case when j.run_id is null then extract(epoch from j.due_at - clock_timestamp())::float8 end as next_look,
       case when j.run_id is null then j.timeout end as waited,
       j.run_id::text, j.kind, j.name, j.queue, j.session_id, j.parent_run_id::text, j.attempt, j.max_attempts, j.fence,
       j.priority, extract(epoch from j.due_at)::float8 as due_at, j.input::text, j.definition::text, j.output_schema::text, j.metrics::text,
       case j.kind when 'agent' then j.metadata::text end as metadata, j.streams,
       case j.kind when 'agent' then j.steering::text end as steering, case j.kind when 'agent' then j.context::text end as context,
       j.timeout, extract(epoch from j.deadline_at - clock_timestamp())::float8 as time_left
  from pgrun._claim_limited(:'worker_id'::uuid, :'queue', :'names'::text[], :'slots'::int, :'yields'::boolean) j;
