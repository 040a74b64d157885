-- The functions that people call from psql; the command line and the library call the same ones.

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
            using errcode = 'PGR02', hint = case job.status when 'paused' then 'It waits for a person: pgrun.approve(run_id).'
                                                            when 'running' then 'To stop it: pgrun.cancel(run_id).'
                                                            else 'To ask again, submit it again: pgrun.submit(name, input).' end;
    end if;
    if job.status <> 'pending' then  -- it ended: an agent begins anew, a task goes on after the steps that it has taken
        delete from pgrun.steps s where s.run_id = retry.run_id and job.kind = 'agent';
        perform pgrun.retry(c.run_id) from pgrun.jobs c
          where c.parent_run_id = retry.run_id and c.status in ('error', 'cancelled');
    end if;
    update pgrun.jobs j
       set status = 'pending', due_at = now(), finished_at = null, cancel_requested_at = null, superseded = null, worker_id = null,
           attempt = case when job.status = 'pending' then j.attempt else 0 end,
           paused_at = null,
           expires_at = case when job.status = 'pending' then j.expires_at end,
           deadline_at = case when job.status = 'pending' then j.deadline_at end,
           requirements = case when job.status = 'pending' then j.requirements end,
           begun = case when job.status = 'pending' then j.begun end,
           call = case when job.status = 'pending' then j.call end,
           progress = case when job.status = 'pending' then j.progress end,
           held = case when job.multitask is distinct from 'parallel'
                      and exists (select from pgrun.jobs o
                                     where o.session_id = job.session_id and o.finished_at is null and o.run_id <> job.run_id
                                       and o.multitask is distinct from 'parallel'
                                       and (o.held is null or o.held = 'children' or o.held = 'session' and o.session_seq < job.session_seq))
                       then 'session' end
     where j.run_id = retry.run_id
    returning * into job;
    if job.held is null then
        perform pg_notify('pgrun_wake', job.queue);
    end if;
    return job.status;
exception when unique_violation then  -- it gave its key away when it ended
    raise exception 'run % cannot be retried: its key "%" is held by run %', job.run_id, job.key,
        (select j.run_id from pgrun.jobs j where j.name = job.name and j.key = job.key and pgrun._holds_key(j))
        using errcode = 'PGR02', hint = 'Wait until that run has ended, or cancel it.';
end $$;
comment on function pgrun.retry(uuid) is
    'Makes a failed or cancelled run due again with all its attempts, and with it those that it had started: an agent begins anew, a task goes on after the steps that it has recorded; a pending one that waits for its next attempt becomes due now. It may take its time: what was said of its expiry and deadline is void. Fails for runs that run or have completed, and for one whose key another run holds by now.';

-- For what failed of one cause, which has been seen to. Each call is a transaction of its own, and what it makes due does not come
-- again in the next, because it ends later than `until`, if it should fail once more. Sessions are locked in one order, so that two
-- who do this at once do not lock each other out.
create function pgrun.retry_many(
    queue      text        default null,
    name       text        default null,
    error_type text        default null,
    since      interval    default null,
    until      timestamptz default now(),
    max_rows   int         default 1000
) returns bigint language plpgsql as $$
declare
    failed  uuid;
    retried bigint := 0;
begin
    if retry_many.max_rows < 0 then
        raise exception 'max_rows %: not negative', retry_many.max_rows using errcode = 'PGR02';
    end if;
    for failed in
        select f.run_id
          from (select j.run_id, j.session_id from pgrun.jobs j
                 where j.status = 'error' and j.finished_at <= retry_many.until
                   and j.finished_at >= coalesce(now() - retry_many.since, '-infinity')
                   and (retry_many.queue is null or j.queue = retry_many.queue)
                   and (retry_many.name is null or j.name = retry_many.name)
                   and (retry_many.error_type is null or j.error ->> 'type' = retry_many.error_type)
                 order by j.finished_at limit retry_many.max_rows) f
         order by f.session_id, f.run_id
    loop
        begin
            perform pgrun.retry(failed);
            retried := retried + 1;
        exception when sqlstate 'PGR01' or sqlstate 'PGR02' then  -- deleted, or retried by somebody else, meanwhile
        end;
    end loop;
    return retried;
end $$;
comment on function pgrun.retry_many(text, text, text, interval, timestamptz, int) is
    'Makes runs that ended in error due again, as pgrun.retry does: the oldest first, at most max_rows in this transaction; of one queue, name and type of error, within the last `since` and not after `until`; null means any. Returns how many: call it again, with the same until, until it says 0.';

-- The decisions of a person on the calls that a paused run waits for.

-- Whether a call can be decided on so; raises with what to do instead if it cannot.
create function pgrun._check_decision(requirement jsonb, approved boolean, result text, input jsonb) returns void
    language plpgsql immutable as $$
declare
    what    text := format('call %s of %s (%s)', requirement ->> 'call_id', requirement ->> 'name', requirement ->> 'kind');
    kind    text := requirement ->> 'kind';
    known   text[];
    needed  text[];
    problem text;
begin
    select coalesce(array_agg(f ->> 'name'), '{}'),
           coalesce(array_agg(f ->> 'name') filter (where coalesce((f ->> 'required')::boolean, true)), '{}')
      into known, needed
      from jsonb_array_elements(requirement -> 'fields') as fields (f);
    problem := case
        when not approved and (result is not null or input is not null) then 'is rejected, so it takes no result and no input'
        when kind = 'external' and approved and result is null then 'is executed elsewhere: say what it returned, with result'
        when kind not in ('external', 'repeat') and result is not null then 'is called by a worker, so it takes no result'
        when kind <> 'user_input' and input is not null then 'takes no input'
        when kind = 'user_input' and approved and jsonb_typeof(coalesce(input, '{}')) <> 'object' then 'takes an object as input'
    end;
    if problem is null and kind = 'user_input' and approved
       and not (coalesce(input, '{}') ?& needed
                and known @> array(select jsonb_object_keys(coalesce(input, '{}')))) then
        problem := format('waits for an input with %s', array_to_string(known, ', '));
    end if;
    if problem is not null then
        raise exception '% %', what, problem using errcode = 'PGR02';
    end if;
end $$;
comment on function pgrun._check_decision(jsonb, boolean, text, jsonb) is 'Raises unless a call that waits for a person can be decided on so.';

create function pgrun.approve(
    run_id      uuid,
    call_id     text    default null,
    approved    boolean default true,
    note        text    default null,
    result      text    default null,
    input       jsonb   default null,
    decision_id uuid    default null,
    decided_by  text    default session_user
) returns text language plpgsql as $$
declare
    job      pgrun.jobs;
    chosen   bigint[];
    decided  boolean;
    decision jsonb;
begin
    -- Whoever decides at the same time, or pauses or cancels the run, goes before or after.
    select * into job from pgrun.jobs j where j.run_id = approve.run_id for update;
    if not found then
        raise exception 'no run % exists', approve.run_id using errcode = 'PGR01';
    end if;
    if approve.decision_id is not null
       and exists (select from jsonb_array_elements(job.requirements) r where r ->> 'decision_id' = approve.decision_id::text) then
        return job.status;
    end if;
    select array_agg(n) filter (where job.status = 'paused' and not r ? 'approved'),
           (array_agg((r ->> 'approved')::boolean order by n desc) filter (where r ? 'approved'))[1]
      into chosen, decided
      from jsonb_array_elements(job.requirements) with ordinality as a (r, n)
     where approve.call_id is null or r ->> 'call_id' = approve.call_id;
    if chosen is null then
        if decided = approve.approved then  -- said again
            return job.status;
        end if;
        raise exception 'run % is %: %', approve.run_id, job.status,
                case when decided is not null then format('this was %s already', case when decided then 'approved' else 'rejected' end)
                     when job.status = 'paused' then format('it does not wait for call "%s"', approve.call_id)
                     else 'it waits for nobody' end
            using errcode = 'PGR02',
            hint = coalesce((select 'It waits for: ' || string_agg(format('%s (%s of %s)', r ->> 'call_id', r ->> 'kind', r ->> 'name'), ', ') || '.'
                               from jsonb_array_elements(job.requirements) r
                              where job.status = 'paused' and not r ? 'approved'),
                            'Those that wait: select run_id, waits_for from pgrun.runs where status = ''paused'';');
    elsif cardinality(chosen) > 1 and (approve.result is not null or approve.input is not null) then
        raise exception 'run % waits for % calls: say which of them has this %', approve.run_id, cardinality(chosen),
                case when approve.result is not null then 'result' else 'input' end
            using errcode = 'PGR02';
    end if;
    perform pgrun._check_decision(job.requirements -> (n - 1)::int, approve.approved, approve.result, approve.input)
       from unnest(chosen) n;
    decision := jsonb_strip_nulls(jsonb_build_object('approved', approve.approved, 'note', approve.note, 'result', approve.result,
                                                     'decided_at', now(), 'decision_id', approve.decision_id,
                                                     'decided_by', coalesce(approve.decided_by, session_user)))
                || case when approve.input is null then '{}' else jsonb_build_object('input', approve.input) end;
    update pgrun.jobs j
       set requirements = (select jsonb_agg(case when n = any (chosen) then r || decision else r end order by n)
                             from jsonb_array_elements(j.requirements) with ordinality as a (r, n))
     where j.run_id = approve.run_id;
    if exists (select from jsonb_array_elements(job.requirements) with ordinality as a (r, n)
                where not r ? 'approved' and n <> all (chosen)) then
        return 'paused';
    end if;
    -- One that had stepped aside takes its place in the session again, before all that came later but behind the one that is open.
    update pgrun.jobs j
       set status = 'pending', due_at = now(), paused_at = null, held = case j.held when 'person' then 'session' end
     where j.run_id = approve.run_id;
    if job.held is null then
        perform pg_notify('pgrun_wake', job.queue);
    else
        perform pgrun._open_session(job.session_id);
    end if;
    return 'pending';
end $$;
comment on function pgrun.approve(uuid, text, boolean, text, text, jsonb, uuid, text) is
    'Decides on a call that a paused run waits for, null call_id: on all that it waits for. approved => false rejects; result is what a call returned that was executed elsewhere, input an object with the values of its fields. decided_by is kept with the decision, by default the session_user. When nothing is open any more the run goes on. Returns its status; saying the same again changes nothing.';

-- For a person or cron, who say how many one transaction may delete; the library goes batch by batch, see prune_runs.sql.
create function pgrun.prune(
    older_than interval default '7 days',
    status     text     default null,
    queue      text     default null,
    max_rows   int      default 10000,
    name       text     default null
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
               and (prune.name is null or o.name = prune.name)
             order by o.finished_at
             limit prune.max_rows
               for update skip locked));
    get diagnostics pruned = row_count;
    return pruned;
end $$;
comment on function pgrun.prune(interval, text, text, int, text) is
    'Deletes runs that ended longer ago than older_than, the oldest first, at most max_rows in this transaction; null status, queue or name means any. Returns how many: call it again, or from cron, until it says 0.';

-- For tests of programs: their time goes on without their waiting for it. Workers keep their leases. A schedule whose only moment has
-- moved is computed anew, as if it had been changed as long ago.
create function pgrun._advance(by interval) returns void language plpgsql as $$
declare
    part record;
begin
    for part in
        select c.relname, string_agg(format('%1$I = %1$I - $1', a.attname), ', ') as moved
          from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace = (select j.relnamespace from pg_class j where j.oid = 'pgrun.jobs'::regclass) and c.relkind = 'r' and a.atttypid = 'timestamptz'::regtype
           and c.relname not in ('migrations', 'workers') and a.attname <> 'changed_at'
         group by c.relname
    loop
        execute format('update pgrun.%I set %s', part.relname, part.moved) using _advance.by;
    end loop;
    update pgrun.schedules set changed_at = changed_at - _advance.by;
end $$;
comment on function pgrun._advance(interval) is 'For tests: moves every moment of every row back, as if so much time had passed.';
