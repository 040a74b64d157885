-- Submitting with keys, moments and everything else that is more than a plain insert.
-- Error codes here and below: PGR01 no such run, PGR02 the call cannot be accepted, PGR03 the session is busy, PGR04 the run has ended.

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
create function pgrun._resubmit(common jsonb, wanted jsonb, sessions text[]) returns void language sql as $$
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
              and (h.session_id is null or h.session_id = any (sessions))
            order by h.key for update of h) as m
     where j.run_id = m.run_id
$$;
comment on function pgrun._resubmit(jsonb, jsonb, text[]) is
    'Replaces the input and the options of runs that hold a key and have not been started yet, of these sessions and of none.';

-- A period that is over holds its key until somebody wants it again.
create function pgrun._free_keys(name text, wanted jsonb, sessions text[]) returns void language sql as $$
    update pgrun.jobs j
       set key_scope = null, key_until = null
      from (select h.run_id from pgrun.jobs h
             where h.name = _free_keys.name and h.key = any (array(select jsonb_object_keys(wanted))) and pgrun._holds_key(h)
               and h.key_scope = 'period' and h.key_until <= now() and (h.session_id is null or h.session_id = any (sessions))
             order by h.key for update) as over
     where j.run_id = over.run_id
$$;
comment on function pgrun._free_keys(text, jsonb, text[]) is 'Frees keys whose period is over, of runs of these sessions and of none.';

create function pgrun._without(those jsonb, others jsonb) returns jsonb language sql immutable as $$
    select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(those) where not others ? key
$$;
comment on function pgrun._without(jsonb, jsonb) is 'The members of an object whose keys another one does not have; the operator - compares each with each.';

-- Submits runs that differ in id, key and input only, with a key each or without any, and says for each of them which run it is now:
-- itself, or the one that holds its key. Who holds it is asked first, but the unique index jobs_key decides: whoever inserts the same
-- key waits there for the other to commit. What is found then may have ended meanwhile; so this goes round until each key has a run,
-- and a round that meets something else than it had seen is rolled back whole, with its locks.
--
-- Of one key that is given twice the first place makes the run, and with a mode other than keep the last one says its input.
-- Triggers of a session have done their part (a number is used, others are cancelled) when a key turns out to be held; all of that
-- is rolled back then. Repeated after a lost answer it finds its own runs by their ids, also those that it has resubmitted.
--
-- Sessions are locked before rows of their runs, as everywhere: a run that holds a key may be of any session, so those are looked
-- up first, and a run that came meanwhile is not changed in this round.
--
-- wakes: someone's own transaction may commit long after its insert, when the worker that had been awake sleeps; so workers
-- are told in any case.
create function pgrun._submit(common jsonb, run_ids uuid[], keys text[], inputs jsonb)
returns table (place bigint, submitted uuid, is_new boolean) language plpgsql as $$
declare
    named    text    := common ->> 'name';
    mode     text    := coalesce(common ->> 'on_duplicate', 'keep');
    given    jsonb;           -- key → [id, input] of all
    wanted   jsonb;           -- of what has no run yet
    runs     jsonb   := '{}'; -- key → id of its run
    made     jsonb   := '{}'; -- ids of those that were inserted here
    ours     jsonb;           -- id → key of what has no run yet
    sessions text[];          -- which are locked
begin
    if cardinality(keys) = 0 then
        select coalesce(jsonb_object_agg(id, true), '{}') into made
          from pgrun._insert_runs(common, run_ids, '{}', array(select jsonb_array_elements(inputs))) as id;
    else
        select jsonb_object_agg(k.key, jsonb_build_array(k.ids[1], k.datas[case mode when 'keep' then 1 else cardinality(k.datas) end])),
               jsonb_object_agg(k.ids[1], k.key)
          into given, ours
          from (select g.key, array_agg(g.id order by g.place) as ids, array_agg(g.data order by g.place) as datas
                  from rows from (unnest(run_ids), unnest(keys), jsonb_array_elements(inputs)) with ordinality as g (id, key, data, place)
                 group by g.key) k;
        for round in 1 .. 100 loop
            sessions := array(
                select j.session_id from pgrun.jobs j
                 where j.name = named and j.key = any (array(select jsonb_object_keys(given))) and pgrun._holds_key(j)
                   and j.session_id is not null and (mode <> 'keep' or j.key_scope = 'period' and j.key_until <= now()));
            if common ->> 'session_id' is not null and (mode <> 'keep' or sessions <> '{}') then
                sessions := sessions || (common ->> 'session_id');
            end if;
            begin
                perform from pgrun.sessions s where s.session_id = any (sessions) order by s.session_id for update;
                select coalesce(jsonb_object_agg(ours ->> f.id, f.run_id), '{}') into runs
                  from (select j.run_id, j.run_id::text as id from pgrun.jobs j where j.run_id = any (array(select jsonb_object_keys(ours)::uuid))
                        union all
                        select j.run_id, j.resubmitted_as::text from pgrun.jobs j
                         where mode <> 'keep' and j.resubmitted_as = any (array(select jsonb_object_keys(ours)::uuid))) f;
                wanted := pgrun._without(given, runs);
                perform pgrun._free_keys(named, wanted, sessions);
                if mode <> 'keep' then
                    perform pgrun._resubmit(common, wanted, sessions);
                end if;
                select runs || coalesce(jsonb_object_agg(j.key, j.run_id), '{}') into runs
                  from pgrun.jobs j
                 where j.name = named and j.key = any (array(select jsonb_object_keys(wanted))) and pgrun._holds_key(j)
                   and (mode = 'keep' or j.started_at is not null or j.status <> 'pending' or j.resubmitted_as::text = wanted -> j.key ->> 0);
                wanted := pgrun._without(wanted, runs);
                select coalesce(jsonb_object_agg(id, true), '{}') into made
                  from pgrun._insert_runs(
                           common, array(select (value ->> 0)::uuid from jsonb_each(wanted)), array(select jsonb_object_keys(wanted)),
                           array(select value -> 1 from jsonb_each(wanted))) as id;
                exit when (select count(*) from jsonb_object_keys(made)) = (select count(*) from jsonb_object_keys(wanted));
                raise unique_violation;  -- somebody was faster: it is found in the next round
            exception
                when unique_violation then
                    runs := null;
                when deadlock_detected then  -- two wait for each other's keys in two orders
                    runs := null;
                    if round = 10 then  -- and one of them does so in a transaction of somebody's own
                        raise;
                    end if;
                when sqlstate 'PGR03' then  -- the session may be busy with the very run that holds the key
                    runs := null;
                    if not exists (select from pgrun.jobs j
                                    where j.name = named and j.key = any (array(select jsonb_object_keys(wanted))) and pgrun._holds_key(j)) then
                        raise;
                    end if;
            end;
        end loop;
        if runs is null then
            raise exception 'keys that are neither held nor free: %', array(select jsonb_object_keys(given) limit 3)
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
        select g.place, coalesce((runs ->> g.key)::uuid, (given -> g.key ->> 0)::uuid, g.id), made ? g.id::text
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
