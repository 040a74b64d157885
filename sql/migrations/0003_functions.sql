-- The functions that people call from psql; the command line and the library call the same ones.
-- Error codes: PGR01 no such run, PGR02 the call cannot be accepted, PGR03 the session is busy, PGR04 the run has ended.

create function pgrun.submit(
    name          text,
    input         jsonb,
    queue         text     default 'default',
    session_id    text     default null,
    priority      int      default 0,
    delay         interval default '0',
    max_attempts  int      default null,
    metadata      jsonb    default '{}',
    definition    jsonb    default null,
    output_schema jsonb    default null,
    run_id        uuid     default null,
    multitask     text     default null
) returns uuid language plpgsql as $$
declare
    submitted uuid;
begin
    if not exists (select from pgrun.queues q where q.queue = submit.queue) then
        raise exception 'unknown queue "%"', submit.queue using errcode = 'PGR02',
            hint = format('Known queues: %s. Start a worker that serves it, or: insert into pgrun.queues (queue) values (%L);',
                          (select string_agg(q.queue, ', ' order by q.queue) from pgrun.queues q), submit.queue);
    end if;
    insert into pgrun.jobs (run_id, name, input, queue, session_id, priority, due_at, max_attempts, metadata, definition, output_schema,
                            multitask)
    values (coalesce(submit.run_id, pgrun.new_run_id()), submit.name, submit.input, submit.queue, submit.session_id, submit.priority,
            now() + submit.delay,
            coalesce(submit.max_attempts, (select a.max_attempts from pgrun.agents a where a.name = submit.name), 5),
            submit.metadata, submit.definition, submit.output_schema, nullif(submit.multitask, 'enqueue'))
    on conflict on constraint jobs_pkey do nothing  -- naming the column would mean the parameter
    returning jobs.run_id into submitted;
    if submitted is null then
        return submit.run_id;
    end if;
    if not exists (select from pgrun.jobs j where j.run_id = submitted and j.definition is not null)
       and not exists (select from pgrun.workers w where w.stopped_at is null and submit.name = any (w.names)) then
        raise warning 'no agent and no worker knows the name "%" yet', submit.name
            using hint = 'The run is kept and waits until a worker that knows the name serves its queue.';
    end if;
    return submitted;
end $$;
comment on function pgrun.submit(text, jsonb, text, text, int, interval, int, jsonb, jsonb, jsonb, uuid, text) is
    'Submits a run and returns its run_id. Workers start it after the surrounding transaction has committed. Repeated with the same run_id it changes nothing. multitask says what happens in a busy session: enqueue (the default), reject (error PGR03), interrupt, rollback or parallel.';

create function pgrun.cancel(run_id uuid) returns text language plpgsql as $$
declare
    state text;
begin
    -- A run is left to its worker only while that worker's lease lasts: a dead one would never stop it.
    update pgrun.jobs j
       set status = case when c.owned then 'running' else 'cancelled' end,
           finished_at = case when c.owned then null else now() end,
           cancel_requested_at = coalesce(j.cancel_requested_at, now()),
           held = null
      from (select o.run_id, o.fence, o.status = 'running' and exists (
                       select from pgrun.workers w
                        where w.worker_id = o.worker_id and w.stopped_at is null and w.lease_until > now()) as owned
              from pgrun.jobs o where o.run_id = cancel.run_id and o.finished_at is null for update) c
     where j.run_id = c.run_id
    returning j.status into state;
    if state = 'cancelled' then
        perform pg_notify('pgrun_done', cancel.run_id::text);
    elsif state = 'running' then
        perform pg_notify('pgrun_cancel', cancel.run_id::text);
        state := 'cancelling';
    else
        select j.status into state from pgrun.jobs j where j.run_id = cancel.run_id;
    end if;
    if state is null then
        raise exception 'no run % exists', cancel.run_id using errcode = 'PGR01';
    end if;
    return state;
end $$;
comment on function pgrun.cancel(uuid) is
    'Cancels a run: a pending or paused one at once (cancelled), a running one as soon as its worker has stopped it (cancelling). A run that has ended keeps its status, which is returned.';

-- The list only grows, and the journal says how many of it the run has heard: nothing has to be taken out of it, and an end that
-- comes at the same moment finds one that it has not heard (finish_runs.sql).
create function pgrun.steer(run_id uuid, message text, message_id uuid default null) returns text language plpgsql as $$
declare
    job record;
begin
    select j.status, j.kind, j.steering, j.cancel_requested_at, j.finished_at into job
      from pgrun.jobs j where j.run_id = steer.run_id for update;
    if not found then
        raise exception 'no run % exists', steer.run_id using errcode = 'PGR01';
    elsif job.steering @> jsonb_build_array(jsonb_build_object('message_id', steer.message_id)) then
        return job.status;  -- said already, and the answer was lost
    elsif job.finished_at is not null or job.cancel_requested_at is not null then
        raise exception 'run % has ended (%), nothing more can be said to it', steer.run_id,
            case when job.finished_at is null then 'it is being cancelled' else job.status end using errcode = 'PGR04';
    elsif job.kind <> 'agent' then
        raise exception 'run % executes a task: only agents can be steered', steer.run_id using errcode = 'PGR02';
    elsif coalesce(steer.message, '') = '' then
        raise exception 'message: a text that is not empty' using errcode = 'PGR02';
    end if;
    update pgrun.jobs j
       set steering = coalesce(j.steering, '[]') || jsonb_build_object(
               'message_id', coalesce(steer.message_id, gen_random_uuid()), 'content', steer.message, 'sent_at', now())
     where j.run_id = steer.run_id;
    return job.status;
end $$;
comment on function pgrun.steer(uuid, text, uuid) is
    'Says something to an open run of an agent: the model reads it before its next answer, also if it was about to end. Returns the status of the run; fails for one that has ended (PGR04). Repeated with the same message_id it changes nothing.';

create function pgrun.retry(run_id uuid) returns text language plpgsql as $$
declare
    job pgrun.jobs;
begin
    -- sessions before jobs: the lock order of submissions
    perform from pgrun.sessions s
      where s.session_id = (select j.session_id from pgrun.jobs j where j.run_id = retry.run_id) for update;
    select * into job from pgrun.jobs j where j.run_id = retry.run_id for update;
    if not found then
        raise exception 'no run % exists', retry.run_id using errcode = 'PGR01';
    elsif job.status not in ('pending', 'error', 'cancelled') then
        raise exception 'run % is %: only pending, error and cancelled runs can be retried', retry.run_id, job.status
            using errcode = 'PGR02';
    end if;
    if job.status <> 'pending' then  -- it ended, and is to begin anew
        delete from pgrun.steps s where s.run_id = retry.run_id;
    end if;
    update pgrun.jobs j
       set status = 'pending', due_at = now(), finished_at = null, cancel_requested_at = null, superseded = null, worker_id = null,
           attempt = case when job.status = 'pending' then j.attempt else 0 end,
           held = case when job.multitask is distinct from 'parallel'
                      and exists (select from pgrun.jobs o
                                     where o.session_id = job.session_id and o.finished_at is null and o.run_id <> job.run_id
                                       and o.multitask is distinct from 'parallel'
                                       and (o.held is null or o.session_seq < job.session_seq))
                       then 'session' end
     where j.run_id = retry.run_id
    returning * into job;
    if job.held is null then
        perform pg_notify('pgrun_wake', job.queue);
    end if;
    return job.status;
end $$;
comment on function pgrun.retry(uuid) is
    'Makes a failed or cancelled run due again with all its attempts; a pending one that waits for its next attempt becomes due now. Fails for runs that run or have completed.';

-- For a person or cron, who say how many one transaction may delete; the library goes batch by batch, see prune_runs.sql.
create function pgrun.prune(
    older_than interval default '7 days',
    status     text     default null,
    queue      text     default null,
    max_rows   int      default 10000
) returns bigint language plpgsql as $$
declare
    pruned bigint;
begin
    if prune.status not in ('completed', 'error', 'cancelled') then
        raise exception 'status "%": only runs that are completed, error or cancelled can be pruned', prune.status
            using errcode = 'PGR02';
    elsif prune.older_than < interval '0' then
        raise exception 'older_than %: not negative', prune.older_than using errcode = 'PGR02';
    end if;
    delete from pgrun.jobs j
     where j.run_id = any (array(  -- not a join, for the reason given in prune_runs.sql
            select o.run_id from pgrun.jobs o
             where o.finished_at <= now() - prune.older_than
               and (prune.status is null or o.status = prune.status)
               and (prune.queue is null or o.queue = prune.queue)
             order by o.finished_at
             limit prune.max_rows
               for update skip locked));
    get diagnostics pruned = row_count;
    return pruned;
end $$;
comment on function pgrun.prune(interval, text, text, int) is
    'Deletes runs that ended longer ago than older_than, the oldest first, at most max_rows in this transaction; null status or queue means any. Returns how many: call it again, or from cron, until it says 0.';

create function pgrun.pause_queue(queue text, resume_at timestamptz default null) returns void language sql as $$
    insert into pgrun.queues as q (queue, paused_at, resume_at) values (pause_queue.queue, now(), pause_queue.resume_at)
    on conflict (queue) do update set paused_at = coalesce(q.paused_at, now()), resume_at = excluded.resume_at
$$;
comment on function pgrun.pause_queue(text, timestamptz) is
    'Workers claim nothing more from this queue until it is resumed, or resume_at has passed. What runs goes on.';

create function pgrun.resume_queue(queue text) returns void language sql as $$
    update pgrun.queues q set paused_at = null, resume_at = null where q.queue = resume_queue.queue;
    select pg_notify('pgrun_wake', resume_queue.queue);
$$;
comment on function pgrun.resume_queue(text) is 'Ends a pause and wakes the workers of the queue.';
