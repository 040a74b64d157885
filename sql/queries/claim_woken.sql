-- Takes up to :slots due runs of one queue for a worker that has just been woken for it: claim_runs.sql with all left out that costs
-- time and is rarely needed. It says nothing of when the next run will be due, begins at the first run, and takes only what the worker
-- can execute for certain, nothing from a queue with limits and no run with a key; whoever gets nothing asks claim_runs.sql. One plan of
-- few nodes: each of them costs ten microseconds, and an idle worker is woken for a single run. One priority comes after the other, as
-- there.
--
-- Returns one row per claimed run, JSON as text.
with recursive level (priority) as (
    select (select j.priority from pgrun.jobs j
             where j.queue = :'queue' and j.status = 'pending' and j.held is null and j.concurrency_key is null
             order by j.priority limit 1)
    union all
    select (select j.priority from pgrun.jobs j
             where j.queue = :'queue' and j.status = 'pending' and j.held is null and j.concurrency_key is null and j.priority > l.priority
             order by j.priority limit 1)
      from level l where l.priority is not null),
due as materialized (
    select of_level.run_id
      from level l
     cross join lateral (
        select j.run_id
          from pgrun.jobs j
         where j.queue = :'queue' and j.priority = l.priority and j.status = 'pending' and j.held is null and j.concurrency_key is null
           and j.due_at <= now()
           and (j.expires_at is null or j.expires_at > now()
                or (j.started_at is not null and j.error ->> 'type' is distinct from 'UnknownName'))
           and (j.definition is not null or j.name = any (:'names'::text[]))
           and exists (select from pgrun.workers where worker_id = :'worker_id'::uuid and stopped_at is null)
           and not exists (select from pgrun.queues q
                            where q.queue = :'queue'
                              and (q.limited or q.paused_at is not null and (q.resume_at is null or q.resume_at > now())))
         order by j.due_at, j.run_id
         limit :'slots'::int
           for update of j skip locked) of_level
     limit :'slots'::int)
update pgrun.jobs j
   set status = 'running', attempt = j.attempt + 1, fence = j.fence + 1, worker_id = :'worker_id'::uuid, started_at = clock_timestamp()
 where j.run_id = any (array(select run_id from due))
returning j.run_id::text, j.kind, j.name, j.queue, j.session_id, j.parent_run_id::text, j.attempt, j.max_attempts, j.fence,
          j.priority, extract(epoch from j.due_at)::float8, j.input::text, j.definition::text, j.output_schema::text, j.metrics::text,
          case j.kind when 'agent' then j.metadata::text end, j.streams,
          case j.kind when 'agent' then j.steering::text end, case j.kind when 'agent' then j.context::text end,
          j.timeout, extract(epoch from j.deadline_at - now())::float8;
