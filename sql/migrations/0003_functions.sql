-- The functions that people call from psql; the command line and the library call the same ones.
-- Error codes: PGR01 no such run, PGR02 the call cannot be accepted, PGR03 the session is busy, PGR04 the run has ended.

-- Keys. A run holds its key as long as its key_scope says; the planner puts this in the place of a call, and finds the index jobs_key by it.
create function pgrun._holds_key(j pgrun.jobs) returns boolean language sql immutable as $$
    select j.key_scope is not null
       and case j.key_scope when 'pending' then j.started_at is null and j.finished_at is null when 'unfinished' then j.finished_at is null else true end
$$;
comment on function pgrun._holds_key(pgrun.jobs) is 'Whether a run holds its key, so that no other one with its name can have it.';

-- Limits of time. Whoever has been started once does not expire any more; a worker that did not know its name has not started it.
create function pgrun._starts_until(j pgrun.jobs) returns timestamptz language sql immutable as $$
    select case when j.started_at is null or j.attempt = 0 and j.error ->> 'type' = 'UnknownName' then j.expires_at end
$$;
comment on function pgrun._starts_until(pgrun.jobs) is 'When a run expires; null if it does not, or not any more.';

create function pgrun._ends_at(j pgrun.jobs) returns timestamptz language sql immutable as $$
    select least(j.deadline_at, case when j.started_at is null or j.attempt = 0 and j.error ->> 'type' = 'UnknownName' then j.expires_at end)
$$;
comment on function pgrun._ends_at(pgrun.jobs) is 'When a run that nobody executes ends by itself, see expire_runs.sql; null: it does not.';

-- Inserts runs that have everything but their ids, keys and inputs in common: one object, with the names of the columns; moments may
-- be given in seconds: delay from now, expires and deadline from when it is due. Those that are there already, or whose key is
-- held, are left out. In the order of their keys, so that two statements do not wait for each other in a circle; of a session, which
-- one of them has locked, in the order of their ids (where that meets another order, _submit begins again).
create function pgrun._insert_runs(common jsonb, run_ids uuid[], keys text[], inputs jsonb[]) returns setof uuid language sql as $$
    insert into pgrun.jobs (run_id, kind, name, queue, session_id, session_table, multitask, parent_run_id, priority, due_at, expires_at,
                            deadline_at, timeout, max_attempts, input, definition, output_schema, content_type, metadata, tags, streams,
                            context, concurrency_key, weight, key, key_scope, key_until)
    select g.run_id, c.kind, c.name, coalesce(c.queue, 'default'), c.session_id, c.session_table, c.multitask, c.parent_run_id,
           coalesce(c.priority, 0), m.due_at, coalesce(c.expires_at, m.due_at + make_interval(secs => c.expires)),
           coalesce(c.deadline_at, m.due_at + make_interval(secs => c.deadline)), c.timeout, coalesce(c.max_attempts, 5),
           g.input, c.definition, c.output_schema, c.content_type, coalesce(c.metadata, '{}'), c.tags, coalesce(c.streams, false),
           c.context, c.concurrency_key, c.weight, g.key, case when g.key is not null then coalesce(c.key_scope, 'unfinished') end,
           case when g.key is not null then now() + make_interval(secs => c.key_period) end
      from unnest(run_ids, keys, inputs) as g (run_id, key, input)
     cross join jsonb_to_record(common) as c (
               kind text, name text, queue text, session_id text, session_table text, multitask text, parent_run_id uuid, priority smallint,
               due_at timestamptz, delay float8, expires_at timestamptz, expires float8, deadline_at timestamptz, deadline float8,
               timeout float8, max_attempts smallint, definition jsonb, output_schema jsonb, content_type text, metadata jsonb,
               tags text[], streams boolean, context jsonb, concurrency_key text, weight int, key_scope text, key_period float8)
     cross join lateral (select coalesce(c.due_at, now() + make_interval(secs => coalesce(c.delay, 0)))) as m (due_at)
     order by case when c.session_id is null then g.key end, g.run_id
    on conflict do nothing
    returning run_id
$$;
comment on function pgrun._insert_runs(jsonb, uuid[], text[], jsonb[]) is
    'Inserts runs that differ in id, key and input only, and returns the ids of those that were not there and whose key nobody held.';

-- Gives runs that hold one of these keys and have not been started a newer input (wanted: key → [id of the submission, input]), and
-- everything else that was said with it; their id, session and age stay. The lock makes a worker that takes one of them come before or after.
create function pgrun._resubmit(common jsonb, wanted jsonb) returns void language sql as $$
    update pgrun.jobs j
       set input = wanted -> j.key -> 1, resubmitted_as = (wanted -> j.key ->> 0)::uuid,
           queue = coalesce(c.queue, 'default'), priority = coalesce(c.priority, 0), due_at = m.due_at,
           expires_at = coalesce(c.expires_at, m.due_at + make_interval(secs => c.expires)),
           deadline_at = coalesce(c.deadline_at, m.due_at + make_interval(secs => c.deadline)),
           timeout = c.timeout, max_attempts = coalesce(c.max_attempts, 5), metadata = coalesce(c.metadata, '{}'), tags = c.tags,
           definition = case when c.kind is null then coalesce(c.definition, j.definition) else c.definition end,
           output_schema = case when c.kind is null then coalesce(c.output_schema, j.output_schema) else c.output_schema end,
           content_type = c.content_type, context = c.context, concurrency_key = c.concurrency_key, weight = c.weight,
           streams = j.streams or coalesce(c.streams, false)
      from jsonb_to_record(common) as c (
               kind text, name text, queue text, priority smallint, due_at timestamptz, delay float8, expires_at timestamptz, expires float8,
               deadline_at timestamptz, deadline float8, timeout float8, max_attempts smallint, definition jsonb, output_schema jsonb,
               content_type text, metadata jsonb, tags text[], streams boolean, context jsonb, concurrency_key text, weight int, on_duplicate text, max_delay float8)
     cross join lateral (select coalesce(c.due_at, now() + make_interval(secs => coalesce(c.delay, 0)))) as n (due_at)
     cross join lateral (
           select h.run_id, least(n.due_at, h.created_at + make_interval(secs => c.max_delay)) as due_at
             from pgrun.jobs h
            where h.name = c.name and h.key = any (array(select jsonb_object_keys(wanted))) and pgrun._holds_key(h)
              and h.status = 'pending' and h.started_at is null
            order by h.key for update of h) as m
     where j.run_id = m.run_id
$$;
comment on function pgrun._resubmit(jsonb, jsonb) is
    'Replaces the input and the options of runs that hold a key and have not been started yet.';

create function pgrun._without(those jsonb, others jsonb) returns jsonb language sql immutable as $$
    select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(those) where not others ? key
$$;
comment on function pgrun._without(jsonb, jsonb) is 'The members of an object whose keys another one does not have; the operator - compares each with each.';

-- Submits runs that differ in id, key and input only, with a key each or without any, and says for each of them which run it is now:
-- itself, or the one that holds its key. Who holds it is asked first, but the unique index jobs_key decides: whoever inserts the same
-- key waits there for the other to commit. What is found then may have ended meanwhile, so this goes round until each key has a run.
--
-- Of one key that is given twice the first place makes the run, and with a mode other than keep the last one says its input.
-- Triggers of a session have done their part (a number is used, others are cancelled) when a key turns out to be held; so all of it
-- is rolled back then. Repeated after a lost answer it finds its own runs by their ids, also those that it has resubmitted.
--
-- wakes: someone's own transaction may commit long after its insert, when the worker that had been awake sleeps; so workers
-- are told in any case.
create function pgrun._submit(common jsonb, run_ids uuid[], keys text[], inputs jsonb)
returns table (place bigint, submitted uuid, is_new boolean) language plpgsql as $$
declare
    named  text  := common ->> 'name';
    mode   text  := coalesce(common ->> 'on_duplicate', 'keep');
    wanted jsonb;          -- key → [id, input] of what has no run yet
    runs   jsonb := '{}';  -- key → id of its run
    made   jsonb := '{}';  -- ids of those that were inserted here
    added  jsonb;          -- of this round
    ours   jsonb;          -- id → key of what has no run yet
begin
    if cardinality(keys) = 0 then
        select coalesce(jsonb_object_agg(id, true), '{}') into made
          from pgrun._insert_runs(common, run_ids, '{}', array(select jsonb_array_elements(inputs))) as id;
    else
        select jsonb_object_agg(k.key, jsonb_build_array(k.ids[1], k.datas[case mode when 'keep' then 1 else cardinality(k.datas) end]))
          into wanted
          from (select g.key, array_agg(g.id order by g.place) as ids, array_agg(g.data order by g.place) as datas
                  from rows from (unnest(run_ids), unnest(keys), jsonb_array_elements(inputs)) with ordinality as g (id, key, data, place)
                 group by g.key) k;
        if mode <> 'keep' then  -- before rows of its jobs, as everywhere
            perform from pgrun.sessions s where s.session_id = common ->> 'session_id' for update;
        end if;
        for round in 1 .. 100 loop
            select jsonb_object_agg(value ->> 0, key) into ours from jsonb_each(wanted);
            select runs || coalesce(jsonb_object_agg(ours ->> f.id, f.run_id), '{}') into runs
              from (select j.run_id, j.run_id::text as id from pgrun.jobs j where j.run_id = any (array(select jsonb_object_keys(ours)::uuid))
                    union all
                    select j.run_id, j.resubmitted_as::text from pgrun.jobs j
                     where mode <> 'keep' and j.resubmitted_as = any (array(select jsonb_object_keys(ours)::uuid))) f;
            wanted := pgrun._without(wanted, runs);
            -- A period that is over holds its key until somebody wants it again.
            update pgrun.jobs j set key_scope = null, key_until = null
             where j.name = named and j.key = any (array(select jsonb_object_keys(wanted))) and pgrun._holds_key(j)
               and j.key_scope = 'period' and j.key_until <= now();
            if mode <> 'keep' then
                perform pgrun._resubmit(common, wanted);
            end if;
            select runs || coalesce(jsonb_object_agg(j.key, j.run_id), '{}') into runs
              from pgrun.jobs j
             where j.name = named and j.key = any (array(select jsonb_object_keys(wanted))) and pgrun._holds_key(j);
            wanted := pgrun._without(wanted, runs);
            exit when wanted = '{}';

            begin
                select coalesce(jsonb_object_agg(id, true), '{}') into added
                  from pgrun._insert_runs(
                           common, array(select (value ->> 0)::uuid from jsonb_each(wanted)), array(select jsonb_object_keys(wanted)),
                           array(select value -> 1 from jsonb_each(wanted))) as id;
                if (common ->> 'kind' is distinct from 'task' or common ->> 'session_id' is not null)
                   and (select count(*) from jsonb_object_keys(added)) < (select count(*) from jsonb_object_keys(wanted)) then
                    raise unique_violation;
                end if;
                made := made || added;
                runs := runs || coalesce((select jsonb_object_agg(key, value -> 0) from jsonb_each(wanted) where added ? (value ->> 0)), '{}');
                wanted := pgrun._without(wanted, runs);
            exception
                when unique_violation then null;  -- somebody was faster: it is found in the next round
                when deadlock_detected then null;  -- of a session and of none, they wait for each other's keys in two orders
                when sqlstate 'PGR03' then  -- the session may be busy with the very run that holds the key
                    if not exists (select from pgrun.jobs j
                                    where j.name = named and j.key = any (array(select jsonb_object_keys(wanted))) and pgrun._holds_key(j)) then
                        raise;
                    end if;
            end;
            exit when wanted = '{}';
        end loop;
        if wanted <> '{}' then
            raise exception 'keys that are neither held nor free: %', array(select jsonb_object_keys(wanted) limit 3)
                using errcode = 'serialization_failure';
        end if;
    end if;
    if mode <> 'keep' or (common ->> 'wakes')::boolean then
        perform pg_notify(case when (common ->> 'due_at')::timestamptz > now() or (common ->> 'delay')::float8 > 0
                               then 'pgrun_soon' else 'pgrun_wake' end, coalesce(common ->> 'queue', 'default'));
    end if;
    if coalesce(common ->> 'expires', common ->> 'expires_at', common ->> 'deadline', common ->> 'deadline_at') is not null then
        perform pg_notify('pgrun_soon', '');  -- workers end what nobody executes, and look when the next one is
    end if;
    return query
        select g.place, coalesce((runs ->> g.key)::uuid, g.id), made ? g.id::text
          from rows from (unnest(run_ids), unnest(keys)) with ordinality as g (id, key, place);
end $$;
comment on function pgrun._submit(jsonb, uuid[], text[], jsonb) is
    'Submits runs that differ in id, key and input only; returns for each place which run it is, and whether it is new.';

create function pgrun.submit(
    name          text,
    input         jsonb,
    queue         text        default 'default',
    session_id    text        default null,
    priority      int         default 0,
    delay         interval    default '0',
    max_attempts  int         default null,
    metadata      jsonb       default '{}',
    definition    jsonb       default null,
    output_schema jsonb       default null,
    run_id        uuid        default null,
    multitask     text        default null,
    due_at        timestamptz default null,
    expires       interval    default null,
    expires_at    timestamptz default null,
    deadline      interval    default null,
    deadline_at   timestamptz default null,
    timeout       interval    default null,
    tags          text[]      default null,
    key           text        default null,
    key_scope     text        default null,
    key_period    interval    default null,
    on_duplicate  text        default 'keep',
    max_delay     interval    default null,
    concurrency_key text      default null,
    weight        int         default null
) returns uuid language plpgsql as $$
declare
    due       timestamptz := coalesce(submit.due_at, now() + submit.delay);
    problem   text;
    common    jsonb;
    submitted uuid;
begin
    if not exists (select from pgrun.queues q where q.queue = submit.queue) then
        raise exception 'unknown queue "%"', submit.queue using errcode = 'PGR02',
            hint = format('Known queues: %s. Start a worker that serves it, or: insert into pgrun.queues (queue) values (%L);',
                          (select string_agg(q.queue, ', ' order by q.queue) from pgrun.queues q), submit.queue);
    end if;
    problem := case
        when submit.due_at is not null and submit.delay <> '0' then 'due_at and delay say the same: give one of them'
        when submit.expires is not null and submit.expires_at is not null then 'expires and expires_at say the same: give one of them'
        when submit.deadline is not null and submit.deadline_at is not null then 'deadline and deadline_at say the same: give one of them'
        when submit.key is null and (submit.key_scope is not null or submit.key_period is not null or submit.on_duplicate <> 'keep')
            then 'key_scope, key_period and on_duplicate need a key'
        when submit.key_scope is not null and submit.key_period is not null then 'key_scope and key_period both say how long: give one of them'
        when submit.key_scope not in ('pending', 'unfinished', 'ever') then format('key_scope "%s" is none of pending, unfinished, ever', submit.key_scope)
        when submit.on_duplicate not in ('keep', 'replace', 'debounce')
            then format('on_duplicate "%s" is none of keep, replace, debounce', submit.on_duplicate)
        when submit.max_delay is not null and submit.on_duplicate <> 'debounce' then 'max_delay is for on_duplicate => ''debounce'''
    end;
    if problem is not null then
        raise exception '%', problem using errcode = 'PGR02';
    end if;
    common := jsonb_build_object(
        'name', submit.name, 'queue', submit.queue, 'session_id', submit.session_id, 'priority', submit.priority,
        'multitask', nullif(submit.multitask, 'enqueue'), 'metadata', submit.metadata, 'definition', submit.definition,
        'output_schema', submit.output_schema, 'due_at', due, 'expires_at', coalesce(submit.expires_at, due + submit.expires),
        'deadline_at', coalesce(submit.deadline_at, due + submit.deadline), 'timeout', extract(epoch from submit.timeout),
        'max_attempts', coalesce(submit.max_attempts, (select a.max_attempts from pgrun.agents a where a.name = submit.name), 5),
        'concurrency_key', submit.concurrency_key, 'weight', submit.weight, 'tags', submit.tags, 'on_duplicate', submit.on_duplicate, 'max_delay', extract(epoch from submit.max_delay),
        'key_period', extract(epoch from submit.key_period),
        'key_scope', case when submit.key_period is not null then 'period'
                          when submit.key_scope is null and submit.on_duplicate <> 'keep' then 'pending' else submit.key_scope end);
    select s.submitted into submitted
      from pgrun._submit(common, array[coalesce(submit.run_id, pgrun.new_run_id())],
                         case when submit.key is null then '{}' else array[submit.key] end, jsonb_build_array(submit.input)) s;
    if not exists (select from pgrun.jobs j where j.run_id = submitted and j.definition is not null)
       and not exists (select from pgrun.workers w where w.stopped_at is null and submit.name = any (w.names)) then
        raise warning 'no agent and no worker knows the name "%" yet', submit.name
            using hint = 'The run is kept and waits until a worker that knows the name serves its queue.';
    end if;
    return submitted;
end $$;
comment on function pgrun.submit(text, jsonb, text, text, int, interval, int, jsonb, jsonb, jsonb, uuid, text, timestamptz, interval, timestamptz,
                                 interval, timestamptz, interval, text[], text, text, interval, text, interval, text, int) is
    'Submits a run and returns its run_id. Workers start it after the surrounding transaction has committed. Repeated with the same run_id it changes nothing. multitask says what happens in a busy session: enqueue (the default), reject (error PGR03), interrupt, rollback or parallel. With a key there is one run of that name and key at a time, and its run_id is returned: until it has ended (key_scope unfinished, the default), until it starts (pending), always (ever) or for a period; on_duplicate says whether one that has not started keeps its input, has it replaced, or has its start put off as well (debounce), by no more than max_delay since it was first submitted. One that nobody has started by expires_at (or expires after it is due) is cancelled; deadline_at limits all its attempts together, timeout each. concurrency_key and weight are for the limits of its queue.';

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

create function pgrun.watch(run_id uuid) returns text language plpgsql as $$
declare
    state text;
begin
    update pgrun.jobs j set streams = true where j.run_id = watch.run_id and not j.streams;
    select j.status into state from pgrun.jobs j where j.run_id = watch.run_id;
    if state is null then
        raise exception 'no run % exists', watch.run_id using errcode = 'PGR01';
    end if;
    return state;
end $$;
comment on function pgrun.watch(uuid) is
    'From now on events tells what happens to the run; of one that runs what happened in this attempt before, of one that has ended what its row and steps know. Returns its status. Repeated it changes nothing.';

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

-- Schedules. Cron is computed by workers; what is stored here is the text, and what is wrong with it is told in its row.

-- The id of the run of a tick: UUIDv8, time-ordered like the others. However often somebody tries, a tick has one run.
create function pgrun._tick_run_id(schedule text, changed_at timestamptz, tick timestamptz) returns uuid language sql immutable as $$
    select (lpad(to_hex((extract(epoch from tick) * 1000)::bigint), 12, '0') || '8' || substr(hash, 1, 3) || 'a' || substr(hash, 4, 15))::uuid
      from md5(format('%s %s %s', extract(epoch from tick), extract(epoch from changed_at), schedule)) as hash
$$;
comment on function pgrun._tick_run_id(text, timestamptz, timestamptz) is 'The run_id of a tick of a schedule as it is since it was changed.';

create function pgrun._fire(schedule pgrun.schedules, run_id uuid, tick timestamptz) returns uuid language sql as $$
    insert into pgrun.jobs (run_id, name, queue, due_at, input, session_id, multitask, priority, max_attempts, metadata, context,
                            concurrency_key, weight)
    values (_fire.run_id, schedule.name, schedule.queue, tick, schedule.input, schedule.options ->> 'session_id',
            nullif(schedule.options ->> 'multitask', 'enqueue'), coalesce((schedule.options ->> 'priority')::smallint, 0),
            coalesce((schedule.options ->> 'max_attempts')::smallint,
                     (select a.max_attempts from pgrun.agents a where a.name = schedule.name), 5),
            coalesce(schedule.options -> 'metadata', '{}')
                || jsonb_build_object('schedule', schedule.schedule,
                                      'tick', to_char(tick at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
            schedule.options -> 'context', schedule.options ->> 'concurrency_key', (schedule.options ->> 'weight')::int)
    on conflict do nothing
    returning run_id
$$;
comment on function pgrun._fire(pgrun.schedules, uuid, timestamptz) is 'Submits the run of a tick of a schedule; null if there is one with this id.';

create function pgrun.schedule(
    schedule text,
    name     text,
    input    jsonb       default '{}',
    cron     text        default null,
    every    interval    default null,
    at       timestamptz default null,
    timezone text        default 'UTC',
    missed   text        default 'once',
    queue    text        default 'default',
    options  jsonb       default '{}'
) returns void language plpgsql as $$
declare
    strange text;
begin
    if num_nonnulls(schedule.cron, schedule.every, schedule.at) <> 1 then
        raise exception 'schedule "%": say one of cron, every and at', schedule.schedule using errcode = 'PGR02';
    elsif schedule.missed not in ('skip', 'once', 'all') then
        raise exception 'missed "%": skip, once or all', schedule.missed using errcode = 'PGR02';
    elsif not exists (select from pgrun.queues q where q.queue = schedule.queue) then
        raise exception 'unknown queue "%"', schedule.queue using errcode = 'PGR02',
            hint = format('Start a worker that serves it, or: insert into pgrun.queues (queue) values (%L);', schedule.queue);
    end if;
    select string_agg(key, ', ') into strange from jsonb_object_keys(schedule.options) key
     where key not in ('session_id', 'priority', 'max_attempts', 'multitask', 'metadata', 'context', 'concurrency_key', 'weight');
    if strange is not null then
        raise exception 'runs of a schedule have no option %', strange using errcode = 'PGR02',
            hint = 'There are session_id, priority, max_attempts, multitask, metadata, context, concurrency_key and weight.';
    end if;
    insert into pgrun.schedules as s (schedule, name, input, queue, cron, every, at, timezone, missed, options)
    values (schedule.schedule, schedule.name, schedule.input, schedule.queue, schedule.cron, schedule.every, schedule.at,
            schedule.timezone, schedule.missed, schedule.options)
    on conflict on constraint schedules_pkey do update
        set name = excluded.name, input = excluded.input, queue = excluded.queue, cron = excluded.cron, every = excluded.every,
            at = excluded.at, timezone = excluded.timezone, missed = excluded.missed, options = excluded.options
      where (s.name, s.input, s.queue, s.cron, s.every, s.at, s.timezone, s.missed, s.options)
            is distinct from (excluded.name, excluded.input, excluded.queue, excluded.cron, excluded.every, excluded.at,
                              excluded.timezone, excluded.missed, excluded.options);
    if not exists (select from pgrun.agents a where a.name = schedule.name)
       and not exists (select from pgrun.workers w where w.stopped_at is null and schedule.name = any (w.names)) then
        raise warning 'no agent and no worker knows the name "%" yet', schedule.name
            using hint = 'Its runs wait until a worker that knows the name serves their queue.';
    end if;
end $$;
comment on function pgrun.schedule(text, text, jsonb, text, interval, timestamptz, text, text, text, jsonb) is
    'Adds a schedule, or changes the one of that name: each tick submits a run of the agent or task called name. A wrong cron expression or time zone is reported in schedules.error as soon as a worker has looked. A paused one stays paused.';

create function pgrun.unschedule(schedule text) returns boolean language plpgsql as $$
begin
    delete from pgrun.schedules s where s.schedule = unschedule.schedule;
    return found;
end $$;
comment on function pgrun.unschedule(text) is 'Removes a schedule; what it has submitted stays. Returns whether there was one.';

create function pgrun._check_schedule(schedule text) returns void language plpgsql as $$
begin
    if not exists (select from pgrun.schedules s where s.schedule = _check_schedule.schedule) then
        raise exception 'no schedule "%" exists', _check_schedule.schedule using errcode = 'PGR02';
    end if;
end $$;
comment on function pgrun._check_schedule(text) is 'Raises unless there is such a schedule.';

create function pgrun.pause_schedule(schedule text) returns void language sql as $$
    select pgrun._check_schedule(pause_schedule.schedule);
    update pgrun.schedules s set paused_at = now() where s.schedule = pause_schedule.schedule and s.paused_at is null;
$$;
comment on function pgrun.pause_schedule(text) is 'A schedule fires nothing until it is resumed; ticks in between are gone.';

create function pgrun.resume_schedule(schedule text) returns void language sql as $$
    select pgrun._check_schedule(resume_schedule.schedule);
    update pgrun.schedules s set paused_at = null where s.schedule = resume_schedule.schedule and s.paused_at is not null;
$$;
comment on function pgrun.resume_schedule(text) is 'Ends a pause: the ticks from now on count.';

create function pgrun.run_schedule(schedule text, run_id uuid default null) returns uuid language sql as $$
    select pgrun._check_schedule(run_schedule.schedule);
    select coalesce(pgrun._fire(s, coalesce(run_schedule.run_id, pgrun.new_run_id()), now()), run_schedule.run_id)
      from pgrun.schedules s where s.schedule = run_schedule.schedule;
$$;
comment on function pgrun.run_schedule(text, uuid) is
    'Submits a run of a schedule now, besides its ticks, also of a paused one, and returns its run_id. Repeated with the same run_id it changes nothing.';

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

create function pgrun.pause_queue(queue text, resume_at timestamptz default null) returns void language sql as $$
    insert into pgrun.queues as q (queue, paused_at, resume_at) values (pause_queue.queue, now(), pause_queue.resume_at)
    on conflict (queue) do update set paused_at = coalesce(q.paused_at, now()), resume_at = excluded.resume_at
$$;
comment on function pgrun.pause_queue(text, timestamptz) is
    'Workers claim nothing more from this queue until it is resumed, or resume_at has passed. What runs goes on.';

create function pgrun.resume_queue(queue text) returns void language sql as $$
    update pgrun.queues q set paused_at = null, resume_at = null where q.queue = resume_queue.queue;
    select pg_notify('pgrun_soon', resume_queue.queue);  -- there may also be what is due later
$$;
comment on function pgrun.resume_queue(text) is 'Ends a pause and wakes the workers of the queue.';

create function pgrun._tokens(rate float8, per interval, burst float8, tokens float8, read_at timestamptz, at timestamptz)
returns float8 language sql immutable as $$
    select case when rate is not null then
        least(coalesce(burst, greatest(rate, 1)),
              tokens + greatest(extract(epoch from at - read_at)::float8, 0) * rate / extract(epoch from per)::float8) end
$$;
comment on function pgrun._tokens(float8, interval, float8, float8, timestamptz, timestamptz) is
    'The weight of runs that a rate lets start at a moment, when it was tokens at read_at, null: burst. Null without a rate.';
