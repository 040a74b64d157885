-- What people look at in psql. Views keep their columns; tables may change between versions.

create view pgrun.runs as
select run_id, kind, name, queue, status, session_id, priority, attempt, max_attempts, worker_id,
       created_at, due_at, started_at, finished_at,
       case when status = 'pending' then greatest(now() - due_at, interval '0')
            else greatest(started_at - due_at, interval '0') end as waited,
       case when status <> 'pending' then coalesce(least(finished_at, paused_at), now()) - started_at end as duration,
       error ->> 'message' as error,
       held,
       case when status = 'paused'
            then (select string_agg(format('%s of %s', r ->> 'kind', r ->> 'name'), ', ')
                    from jsonb_array_elements(requirements) r where not r ? 'approved') end as waits_for,
       key, tags, metadata,
       concat_ws(' ', round((progress ->> 'fraction')::numeric * 100) || ' %',
                 case when progress ? 'done' then format('(%s of %s)', progress ->> 'done', progress ->> 'total') end,
                 progress ->> 'message') as progress
  from pgrun.jobs;
comment on view pgrun.runs is 'One line per run. Input, output and definition are wide and stay in jobs.';
comment on column pgrun.runs.waited is 'How long the run has waited for a worker, or had waited when its latest attempt began, since it was due.';
comment on column pgrun.runs.duration is 'How long the latest attempt took, or takes so far; null while the next one is waited for.';
comment on column pgrun.runs.error is 'Message of the last failure.';
comment on column pgrun.runs.progress is 'How far it says that it has come; empty if it has said nothing.';
comment on column pgrun.runs.waits_for is 'What a paused run waits for a person for; pgrun.approve(run_id) says yes to all of it.';

create view pgrun.queue_stats as
select q.queue,
       coalesce(open.depth, 0) as depth,
       coalesce(open.held, 0) as held,
       coalesce(open.scheduled, 0) as scheduled,
       open.oldest_due_age,
       coalesce(open.running, 0) as running,
       coalesce(ended.last_minute, 0) as finished_last_minute,
       coalesce(ended.last_hour, 0) as finished_last_hour,
       ended.error_rate,
       q.paused_at is not null and (q.resume_at is null or q.resume_at > now()) as paused,
       coalesce(open.waiting_for_people, 0) as waiting_for_people,
       q.concurrency, q.key_concurrency, q.rate, case when q.rate is not null then q.per end as per, q.burst,
       l.tokens,
       case when open.depth > 0 then
            case when q.paused_at is not null and (q.resume_at is null or q.resume_at > now()) then 'paused'
                 when open.running >= q.concurrency then 'concurrency'
                 when l.tokens < 1 then 'rate'
                 when q.key_concurrency is not null and not exists (
                      select from pgrun.jobs j
                       where j.queue = q.queue and j.status = 'pending' and j.held is null and j.due_at <= now()
                       group by j.concurrency_key
                      having j.concurrency_key is null
                          or (select count(*) from pgrun.jobs r
                               where r.status = 'running' and r.queue = q.queue and r.concurrency_key = j.concurrency_key)
                             < q.key_concurrency) then 'key_concurrency' end end as waits_for
  from (select queue, paused_at, resume_at, concurrency, key_concurrency, rate, per, burst from pgrun.queues
        union all
        select distinct j.queue, null::timestamptz, null::timestamptz, null::int, null::int, null::float8, null::interval, null::float8
          from pgrun.jobs j
         where j.finished_at is null and not exists (select from pgrun.queues k where k.queue = j.queue)) q
  left join pgrun.meters m on m.queue = q.queue
 cross join lateral (select pgrun._tokens(q.rate, q.per, q.burst, m.tokens, m.read_at, now()) as tokens) l
  left join (select queue,
                    count(*) filter (where status = 'pending' and held is null and due_at <= now()) as depth,
                    count(*) filter (where status = 'pending' and held is not null) as held,
                    count(*) filter (where status = 'pending' and held is null and due_at > now()) as scheduled,
                    now() - min(due_at) filter (where status = 'pending' and held is null and due_at <= now()) as oldest_due_age,
                    count(*) filter (where status = 'running') as running,
                    count(*) filter (where status = 'paused') as waiting_for_people
               from pgrun.jobs where finished_at is null group by queue) open on open.queue = q.queue
  left join (select queue,
                    count(*) filter (where finished_at > now() - interval '1 minute') as last_minute,
                    count(*) as last_hour,
                    round(count(*) filter (where status = 'error')::numeric / count(*), 3) as error_rate
               from pgrun.jobs where finished_at > now() - interval '1 hour' group by queue) ended on ended.queue = q.queue;
comment on view pgrun.queue_stats is 'One line per queue: what waits, what runs, what ended.';
comment on column pgrun.queue_stats.depth is 'Due runs that no worker has taken yet.';
comment on column pgrun.queue_stats.held is 'Pending runs that wait for something else, such as an earlier run of their session.';
comment on column pgrun.queue_stats.scheduled is 'Pending runs whose time has not come: delayed, or waiting for their next attempt.';
comment on column pgrun.queue_stats.oldest_due_age is 'How long the oldest due run has been waiting.';
comment on column pgrun.queue_stats.running is 'Runs in the hands of a worker.';
comment on column pgrun.queue_stats.finished_last_minute is 'Runs that ended in the last minute, however.';
comment on column pgrun.queue_stats.finished_last_hour is 'Runs that ended in the last hour, however.';
comment on column pgrun.queue_stats.error_rate is 'Share of the last hour''s runs that ended in error, 0 to 1; null without runs.';
comment on column pgrun.queue_stats.paused is 'Workers claim nothing from it at present.';
comment on column pgrun.queue_stats.waiting_for_people is 'Paused runs: each waits for the decision of a person.';
comment on column pgrun.queue_stats.per is 'The time that rate is about; null without a rate.';
comment on column pgrun.queue_stats.tokens is 'The weight of runs that its rate lets start at this moment; negative after a run that is heavier than burst.';
comment on column pgrun.queue_stats.waits_for is 'Why none of the due runs is started: paused, concurrency, rate or key_concurrency (of all their keys as many run as may). Null: it is no limit that they wait for.';

create view pgrun.worker_status as
select w.worker_id, w.mode, w.host, w.pid, w.version, w.queues, w.concurrency,
       (select count(*) from pgrun.jobs j where j.worker_id = w.worker_id and j.status = 'running') as running,
       case when w.stopped_at is not null then w.stop_reason
            when w.lease_until < now() then 'lost'
            when w.blocked_since is not null then 'blocked'
            when w.draining then 'draining'
            else 'alive' end as state,
       w.started_at, w.heartbeat_at, w.lease_until,
       now() - w.blocked_since as blocked_for
  from pgrun.workers w;
comment on view pgrun.worker_status is 'One line per worker process, the recently gone included.';
comment on column pgrun.worker_status.running is 'Runs it holds.';
comment on column pgrun.worker_status.state is
    'alive; draining = finishes what it holds; blocked = its event loop does not run; lost = its lease has run out and its runs will be taken over; stopped; dead.';
comment on column pgrun.worker_status.blocked_for is 'How long its event loop has not run.';

create view pgrun.failures as
select run_id, kind, name, queue, session_id, attempt, finished_at,
       error ->> 'type' as error_type, error ->> 'message' as message, error - 'type' - 'message' as details
  from pgrun.jobs
 where status = 'error' and finished_at is not null;
comment on view pgrun.failures is 'The last error of each failed run. pgrun.retry(run_id) makes one due again.';
comment on column pgrun.failures.error_type is 'Name of the error, for example OutputInvalid.';
comment on column pgrun.failures.message is 'What it said.';
comment on column pgrun.failures.details is 'What else was recorded: raw text, provider code, validation errors.';

create view pgrun.usage_by_day as
select (coalesce(j.finished_at, j.started_at) at time zone 'UTC')::date as day,
       coalesce(j.definition #>> '{model,id}', j.metrics #>> '{last_answer,model}') as model,
       j.name, count(*) as runs,
       sum((j.metrics ->> 'input_tokens')::bigint)::bigint as input_tokens,
       sum((j.metrics ->> 'cached_tokens')::bigint)::bigint as cached_tokens,
       sum((j.metrics ->> 'output_tokens')::bigint)::bigint as output_tokens,
       sum((j.metrics ->> 'reasoning_tokens')::bigint)::bigint as reasoning_tokens,
       sum((j.metrics ->> 'total_tokens')::bigint)::bigint as total_tokens,
       sum((j.metrics ->> 'cost_usd')::numeric) as cost_usd
  from pgrun.jobs j
 where j.kind = 'agent' and j.metrics <> '{}' and j.started_at is not null
 group by 1, 2, 3;
comment on view pgrun.usage_by_day is 'What agents have used, failed attempts included, by the day (UTC) on which the run ended, or began if it is still open. A run that was pruned no longer counts.';
comment on column pgrun.usage_by_day.day is 'Day, in UTC.';
comment on column pgrun.usage_by_day.model is 'The provider''s name of the model.';
comment on column pgrun.usage_by_day.runs is 'How many runs.';
comment on column pgrun.usage_by_day.input_tokens is 'Tokens that the model was shown.';
comment on column pgrun.usage_by_day.cached_tokens is 'The part of input_tokens that the provider had in its cache.';
comment on column pgrun.usage_by_day.output_tokens is 'Tokens that the model wrote.';
comment on column pgrun.usage_by_day.reasoning_tokens is 'The part of output_tokens that it thought with.';
comment on column pgrun.usage_by_day.total_tokens is 'All of them.';
comment on column pgrun.usage_by_day.cost_usd is 'What the provider is likely to bill, in US dollars, for models with a known price.';

-- A root is looked at with all below it; so `where root_run_id = …` or `where session_id = …` asks for no other trees.
create view pgrun.usage_by_tree as
select root.run_id as root_run_id, root.session_id, root.name, used.runs,
       used.input_tokens, used.cached_tokens, used.output_tokens, used.reasoning_tokens, used.total_tokens, used.cost_usd
  from pgrun.jobs root
 cross join lateral (
    with recursive tree as (
        select root.run_id, root.metrics
        union all
        select c.run_id, c.metrics from pgrun.jobs c join tree on c.parent_run_id = tree.run_id)
    select count(*) as runs,
           sum((metrics ->> 'input_tokens')::bigint)::bigint as input_tokens,
           sum((metrics ->> 'cached_tokens')::bigint)::bigint as cached_tokens,
           sum((metrics ->> 'output_tokens')::bigint)::bigint as output_tokens,
           sum((metrics ->> 'reasoning_tokens')::bigint)::bigint as reasoning_tokens,
           sum((metrics ->> 'total_tokens')::bigint)::bigint as total_tokens,
           sum((metrics ->> 'cost_usd')::numeric) as cost_usd
      from tree) used
 where (root.parent_run_id is null or not exists (select from pgrun.jobs p where p.run_id = root.parent_run_id))
   and (root.kind = 'agent' or exists (select from pgrun.jobs c where c.parent_run_id = root.run_id))
   and used.total_tokens is not null;
comment on view pgrun.usage_by_tree is 'What a run has used that nobody started, or whose parent was pruned, with all the runs that it has started and those have: failed attempts, repairs and open runs included.';
comment on column pgrun.usage_by_tree.root_run_id is 'The run at the top.';

create view pgrun.usage_by_session as
select session_id, sum(runs)::bigint as runs,
       sum(input_tokens)::bigint as input_tokens,
       sum(cached_tokens)::bigint as cached_tokens,
       sum(output_tokens)::bigint as output_tokens,
       sum(reasoning_tokens)::bigint as reasoning_tokens,
       sum(total_tokens)::bigint as total_tokens,
       sum(cost_usd) as cost_usd
  from pgrun.usage_by_tree
 where session_id is not null
 group by session_id;
comment on view pgrun.usage_by_session is 'What the runs of a session have used, with all the runs that they have started, which count here and not in sessions of their own.';

-- What a view hands on from its table as it is keeps the table's comment.
do $$
declare
    statement text;
begin
    for statement in
        select format('comment on column pgrun.%I.%I is %L', v.name, shown.attname, col_description(kept.attrelid, kept.attnum))
          from (values ('runs', 'jobs'), ('queue_stats', 'queues'), ('worker_status', 'workers'), ('failures', 'jobs'), ('usage_by_day', 'jobs'),
                       ('usage_by_tree', 'jobs'), ('usage_by_tree', 'usage_by_day'),
                       ('usage_by_session', 'jobs'), ('usage_by_session', 'usage_by_day')) as v (name, source)
          join pg_attribute shown on shown.attrelid = ('pgrun.' || v.name)::regclass and shown.attnum > 0
          join pg_attribute kept on kept.attrelid = ('pgrun.' || v.source)::regclass and kept.attname = shown.attname
         where col_description(shown.attrelid, shown.attnum) is null
           and col_description(kept.attrelid, kept.attnum) is not null
    loop
        execute statement;
    end loop;
end $$;
