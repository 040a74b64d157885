-- Takes up to :slots due runs for a worker: status running, attempt and fence one higher.
--
-- Order: priority, then due_at, then run_id, by index jobs_due; rows that another worker is taking are skipped. Of one among many queues
-- no more than twice its share of the slots is locked, and eight: else each claim would lock as many runs in every queue, and leave most
-- of them to the next. A run whose definition does not travel with it is left to a live worker that has imported its name; if there is
-- none it is claimed all the same, so that somebody says so and puts it off (release). With :yields the caller steps back from whatever
-- a live daemon could execute: an embedded worker does that in mode auto. A worker that has been found dead gets nothing. CTEs are
-- materialized where the planner might otherwise run the limited scan once per joined row, and so lock more than the limit; and they
-- meet in `any (array(…))`, not in a join, for which it might read the whole table.
--
-- A recursion hops from one priority to the next, and each is looked at for itself, until there are enough: three probes of jobs_due for
-- each priority, however many runs are scheduled. Asked for several priorities at once the index would walk over all of these.
--
-- It starts now, and not when the transaction began: in between, the run before it in its session may have ended.
--
-- One that has expired is left to expire_runs.sql; whoever has been started does not expire any more, unless it was by a worker that
-- did not know its name.
--
-- :from_priorities and :from_dues (seconds since 1970) say for each queue at which position to begin; -32768 and -Infinity
-- at the first. While someone holds an old snapshot, the index entries of runs that were claimed since cannot be removed, and whoever
-- begins at the first walks over all of them.
--
-- Nothing is taken from queues with limits or with runs that have keys: claim_limited.sql does that. Which of :queues they are is in
-- `apart` of the first row, an object that says of each whether anything is pending there. Where nobody uses either, it is null
-- and costs a look at two empty indexes.
--
-- Returns one row per claimed run, JSON as text, or one with run_id null when there is none. next_due, the same in all of them, says in how
-- many seconds a pause ends or the next pending run will be due, null if not within :horizon: a worker with nothing to do sleeps that
-- long, not at all where a queue has given its share and may have more; or until the promise of another worker to look by itself ends
-- (promise_looks.sql), and 50 ms for what commits just then: whoever submitted to that worker notified nobody, and it may be dead.
with worker as materialized (
    select worker_id from pgrun.workers where worker_id = :'worker_id'::uuid and stopped_at is null),
others as materialized (
    select queues, names, mode, awake_until from pgrun.workers
     where stopped_at is null and lease_until > now() and not draining and worker_id <> :'worker_id'::uuid),
apart as materialized (
    select case when exists (select from pgrun.queues q where q.limited)
                  or exists (select from pgrun.jobs j where j.status = 'pending' and j.held is null and j.concurrency_key is not null)
                then pgrun._apart(:'queues'::text[]) end as queues),
served as materialized (
    select s.queue, s.priority, to_timestamp(s.due) as due_at,
           least(:'slots'::int, 2 * :'slots'::int / cardinality(:'queues'::text[]) + 8) as share,
           array(with recursive level (priority) as (
                     select (select j.priority from pgrun.jobs j
                              where j.queue = s.queue and j.status = 'pending' and j.held is null and j.concurrency_key is null
                                and (j.priority, j.due_at) >= (s.priority, to_timestamp(s.due))
                              order by j.priority, j.due_at limit 1)
                     union all
                     select (select j.priority from pgrun.jobs j
                              where j.queue = s.queue and j.status = 'pending' and j.held is null and j.concurrency_key is null
                                and j.priority > l.priority
                              order by j.priority limit 1)
                       from level l where l.priority is not null)
                 select priority from level where priority is not null) as priorities
      from worker
     cross join unnest(:'queues'::text[], :'from_priorities'::smallint[], :'from_dues'::float8[]) as s (queue, priority, due)
     where not exists (select from pgrun.queues q
                        where q.queue = s.queue and q.paused_at is not null and (q.resume_at is null or q.resume_at > now()))
       and not coalesce((select queues from apart) ? s.queue, false)),
found as materialized (
    select s.queue, s.share, d.*
      from served s
     cross join lateral (
        select of_level.*
          from unnest(s.priorities) as l (priority)
         cross join lateral (
            select j.run_id, j.priority, j.due_at
              from pgrun.jobs j
             where j.queue = s.queue and j.priority = l.priority and j.status = 'pending' and j.held is null and j.concurrency_key is null
               and j.due_at >= case l.priority when s.priority then s.due_at else '-infinity' end and j.due_at <= now()
               and (j.expires_at is null or j.expires_at > now()
                    or (j.started_at is not null and j.error ->> 'type' is distinct from 'UnknownName'))
               and (j.definition is not null or j.name = any (:'names'::text[])
                    or not exists (select from others o where j.queue = any (o.queues) and j.name = any (o.names)))
               and not (:'yields'::boolean
                        and exists (select from others o where o.mode = 'daemon' and j.queue = any (o.queues)
                                       and (j.definition is not null or j.name = any (o.names))))
             order by j.due_at, j.run_id
             limit s.share
               for update of j skip locked) of_level
         limit s.share) d),
due as materialized (
    select run_id from found order by priority, due_at, run_id limit :'slots'::int),
claimed as (
    update pgrun.jobs j
       set status = 'running', attempt = j.attempt + 1, fence = j.fence + 1, worker_id = :'worker_id'::uuid, started_at = clock_timestamp()
     where j.run_id = any (array(select run_id from due))
    returning j.run_id::text, j.kind, j.name, j.queue, j.session_id, j.parent_run_id::text, j.attempt, j.max_attempts, j.fence,
              j.priority, extract(epoch from j.due_at)::float8, j.input::text, j.definition::text, j.output_schema::text, j.metrics::text,
              case j.kind when 'agent' then j.metadata::text end, j.streams,
              case j.kind when 'agent' then j.steering::text end, case j.kind when 'agent' then j.context::text end,
              j.timeout, extract(epoch from j.deadline_at - now())::float8),
next (due) as (
    select extract(epoch from min(n.due_at) - now())::float8
      from served s
     cross join unnest(s.priorities) as l (priority)
     cross join lateral (
        select j.due_at from pgrun.jobs j
         where j.queue = s.queue and j.priority = l.priority and j.status = 'pending' and j.held is null and j.concurrency_key is null
           and j.due_at > now() and j.due_at < now() + make_interval(secs => :'horizon'::float8)
         order by j.due_at limit 1) n
    union all
    select 0 from found where share < :'slots'::int group by queue, share having count(*) = share
    union all
    select extract(epoch from min(q.resume_at) - now())::float8
      from pgrun.queues q
     where q.queue = any (:'queues'::text[]) and q.resume_at > now() and q.resume_at < now() + make_interval(secs => :'horizon'::float8)
    union all
    select extract(epoch from max(o.awake_until) - now())::float8 + 0.05
      from others o where o.awake_until > now() and o.queues && :'queues'::text[])
select next.due as next_due, claimed.*, case when row_number() over () = 1 then apart.queues end as apart
  from (select min(due) from next) as next (due) cross join apart left join claimed on true;
