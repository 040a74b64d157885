-- The rules that hold whoever writes, a library call or a person in psql: who a run is, its place in its session, and the
-- wake-up of workers.
--
-- Lock order: the row of a session first, then rows of its jobs. A worker that ends a run holds that run's row already when it
-- asks for the session; it is the one that yields, see _open_session.

-- Who is it? A plain `insert into pgrun.jobs (name, input)` gives a name only; the rest comes from the declared agent of that name.
create function pgrun._identify() returns trigger language plpgsql as $$
declare
    agent pgrun.agents;
begin
    select * into agent from pgrun.agents where name = new.name;
    if found then
        new.kind := 'agent';
        new.definition := coalesce(new.definition, agent.definition);
        new.output_schema := coalesce(new.output_schema, agent.output_schema);
    elsif new.kind is null then
        new.kind := case when new.definition is null then 'task' else 'agent' end;
    end if;
    if new.key is not null and new.key_scope is null then
        new.key_scope := 'unfinished';
    end if;
    if new.kind = 'agent' and new.session_id is null then
        new.session_id := new.run_id::text;  -- a conversation of its own, which a later run may join
    end if;
    return new;
end $$;
comment on function pgrun._identify() is 'Trigger: fills kind, definition, output_schema, session_id and key_scope of a run that was inserted by name alone.';

-- Triggers fire in alphabetical order: jobs_identify before jobs_session, because it may choose the session.
create trigger jobs_identify before insert on pgrun.jobs
    for each row when (new.kind is null)
    execute function pgrun._identify();

-- Its place in the session. The upsert locks the session's row until the submitter commits, so concurrent submissions queue up
-- here and get their numbers in commit order. Statements of a plpgsql function see what was committed before each of
-- them began, so the look at earlier runs happens after the lock was had, not before. A repeated submission comes here too, before
-- its conflict is noticed, and must not use up a number.
--
-- What a run does that finds its session busy is in `multitask`. The lock makes that exact: of many that are to be rejected one
-- gets in, and what interrupts others holds nobody up that came after it. A repeat may have waited here for the very run that it
-- repeats, and must not take that for another one.
create function pgrun._take_place_in_session() returns trigger language plpgsql as $$
begin
    if exists (select from pgrun.jobs j where j.run_id = new.run_id) then
        return new;
    end if;
    insert into pgrun.sessions as s (session_id, session_table, last_seq) values (new.session_id, new.session_table, 1)
        on conflict (session_id) do update set last_seq = s.last_seq + 1, updated_at = now(),
            session_table = case s.last_seq when 0 then excluded.session_table else s.session_table end  -- 0: only its state was set
        returning last_seq into new.session_seq;
    if new.status <> 'pending' or new.multitask = 'parallel' then
        return new;
    end if;
    if new.multitask is not null and not exists (select from pgrun.jobs j where j.run_id = new.run_id) then
        perform pgrun._make_way(new.session_id, new.multitask);
    end if;
    if exists (select from pgrun.jobs j
                where j.session_id = new.session_id and j.finished_at is null and j.held is distinct from 'person'
                  and j.multitask is distinct from 'parallel') then
        new.held := 'session';
    end if;
    return new;
end $$;
comment on function pgrun._take_place_in_session() is 'Trigger: numbers a run within its session and holds it while an earlier one is open, or does what its multitask says.';

-- For a run that is not to queue up. Called with the session's row locked. Those that wait come first, the last of them before
-- the others: when the run that holds the session ends, none must be left that this would let start. What waits for a person and has
-- stepped aside is not in the way.
create function pgrun._make_way(session text, multitask text) returns void language plpgsql as $$
declare
    busy record;
    undo jsonb;
begin
    for busy in select j.run_id, j.status from pgrun.jobs j
                 where j.session_id = session and j.finished_at is null and j.held is distinct from 'person'
                   and j.multitask is distinct from 'parallel'
                 order by j.held is distinct from 'session', j.session_seq desc
    loop
        if _make_way.multitask = 'reject' then
            raise exception 'session "%" is busy: its run % is %', session, busy.run_id, busy.status using errcode = 'PGR03';
        end if;
        update pgrun.jobs j set superseded = _make_way.multitask where j.run_id = busy.run_id and j.finished_at is null
        returning j.state_undo into undo;
        if _make_way.multitask = 'rollback' and undo is not null then
            update pgrun.sessions s set state = pgrun._undo_state(s.state, undo) where s.session_id = session;
        end if;
        perform pgrun.cancel(busy.run_id);
    end loop;
end $$;
comment on function pgrun._make_way(text, text) is 'Cancels the open runs of a session for one that interrupts them, or refuses that one (PGR03).';

create trigger jobs_session before insert on pgrun.jobs
    for each row when (new.session_id is not null)
    execute function pgrun._take_place_in_session();

-- A session's state is changed by pieces, and never written back as a whole: so runs that work at the same time lose nothing of
-- each other's. A piece is {path, op, value}: set, default (set if nothing is there), remove, append (to a list), add (to a number).
-- An empty path is the whole state. What is no object on the way is replaced by one.
create function pgrun._change_state(state jsonb, changes jsonb) returns jsonb language plpgsql immutable as $$
declare
    change jsonb;
    path   text[];
    value  jsonb;
    there  jsonb;
begin
    for change in select * from jsonb_array_elements(changes) loop
        path := array(select jsonb_array_elements_text(change -> 'path'));
        value := coalesce(change -> 'value', 'null');
        there := state #> path;
        if change ->> 'op' = 'remove' then
            state := state #- path;
            continue;
        elsif change ->> 'op' = 'default' and there is not null then
            continue;
        elsif change ->> 'op' = 'append' and jsonb_typeof(there) = 'array' then
            value := there || value;
        elsif change ->> 'op' = 'add' and jsonb_typeof(there) = 'number' then
            value := to_jsonb(there::numeric + value::numeric);
        end if;
        if cardinality(path) = 0 then
            state := value;
            continue;
        end if;
        for depth in 1 .. cardinality(path) - 1 loop
            if jsonb_typeof(state #> path[1:depth]) is distinct from 'object' then
                state := jsonb_set(state, path[1:depth], '{}');
            end if;
        end loop;
        state := jsonb_set(state, path, value);
    end loop;
    return state;
end $$;
comment on function pgrun._change_state(jsonb, jsonb) is 'The state of a session after some changes, a list of path, op (set, default, remove, append, add) and value.';

-- Key by key: of what somebody else has changed since nothing is taken back.
create function pgrun._undo_state(state jsonb, undo jsonb) returns jsonb language plpgsql immutable as $$
declare
    changed record;
begin
    for changed in select key, value from jsonb_each(undo) loop
        if state -> changed.key is not distinct from changed.value -> 'after' then
            state := case when changed.value ? 'before' then state || jsonb_build_object(changed.key, changed.value -> 'before')
                          else state - changed.key end;
        end if;
    end loop;
    return state;
end $$;
comment on function pgrun._undo_state(jsonb, jsonb) is 'The state of a session without what a run has changed in it (jobs.state_undo).';

-- The other way round: what a run has to remember of a change. A key that others changed in between counts from there.
create function pgrun._note_undo(undo jsonb, before jsonb, after jsonb) returns jsonb language sql immutable as $$
    select coalesce(undo, '{}') || coalesce(jsonb_object_agg(key,
               case when undo -> key is not null and undo -> key -> 'after' is not distinct from before -> key then (undo -> key) - 'after'
                    when before ? key then jsonb_build_object('before', before -> key) else '{}' end
               || case when after ? key then jsonb_build_object('after', after -> key) else '{}' end), '{}')
      from (select jsonb_object_keys(before) union select jsonb_object_keys(after)) as keys (key)
     where before -> key is distinct from after -> key
$$;
comment on function pgrun._note_undo(jsonb, jsonb, jsonb) is 'What jobs.state_undo is after the run has changed the state of its session from before to after.';

-- Records a step together with what it changes in the state of the run's session: both or neither, and once. The session's row
-- is locked first, as everywhere; like in record_step.sql the update of the run's row is the fence. A run that was rolled back
-- changes nothing any more.
create function pgrun._keep_step(
    run_id uuid, fence bigint, number int, kind text, name text, data jsonb, duration float8, metrics jsonb, changes jsonb
) returns table (said jsonb, new_state jsonb) language plpgsql as $$
declare
    session pgrun.sessions;
    job     pgrun.jobs;
begin
    select s.* into session from pgrun.sessions s
     where s.session_id = (select j.session_id from pgrun.jobs j where j.run_id = _keep_step.run_id) for update;
    update pgrun.jobs j
       set metrics = coalesce(_keep_step.metrics, j.metrics), call = null, begun = j.begun - _keep_step.number::text
     where j.run_id = _keep_step.run_id and j.fence = _keep_step.fence and j.status = 'running'
    returning j.* into job;
    if not found then
        return;
    end if;
    said := job.steering;
    new_state := session.state;
    insert into pgrun.steps (run_id, step, kind, name, attempt, data, duration)
    values (job.run_id, _keep_step.number, _keep_step.kind, _keep_step.name, job.attempt, _keep_step.data, _keep_step.duration)
    on conflict on constraint steps_pkey do nothing;
    if found and job.superseded is distinct from 'rollback' then
        new_state := pgrun._change_state(session.state, changes);
        update pgrun.sessions s set state = new_state where s.session_id = job.session_id;
        update pgrun.jobs j set state_undo = pgrun._note_undo(j.state_undo, session.state, new_state) where j.run_id = job.run_id;
    end if;
    return next;
end $$;
comment on function pgrun._keep_step(uuid, bigint, int, text, text, jsonb, float8, jsonb, jsonb) is
    'Records a step of a run with what it changes in the state of its session; returns what has been said to the run and the state, or nothing if somebody else holds the run.';

-- Lets the next run of a session start, if nothing that is not held is open in it. Returns the id of that run, or null.
-- It must not wait for long: the caller is a worker writing results, the lock may be held by a submitter's own long
-- transaction. After 100 ms it gives up, and pgrun.open_sessions() finds the run later.
create function pgrun._open_session(session text) returns uuid language plpgsql set lock_timeout = '100ms' as $$
declare
    opened uuid;
    in_queue text;
    is_due boolean;
begin
    perform from pgrun.sessions s where s.session_id = session for update;
    update pgrun.jobs
       set held = null
     where run_id = (select j.run_id from pgrun.jobs j
                      where j.session_id = session and j.finished_at is null and j.held = 'session'
                      order by j.session_seq limit 1 for update)
       and not exists (select from pgrun.jobs j
                        where j.session_id = session and j.finished_at is null and (j.held is null or j.held = 'children')
                          and j.multitask is distinct from 'parallel')
    returning run_id, queue, due_at <= now() into opened, in_queue, is_due;
    if opened is not null then
        perform pg_notify(case when is_due then 'pgrun_wake' else 'pgrun_soon' end, in_queue);
    end if;
    return opened;
exception when lock_not_available then
    return null;
end $$;
comment on function pgrun._open_session(text) is 'Lets the next held run of a session start; gives up after 100 ms of waiting for a lock.';

create function pgrun._leave_session() returns trigger language plpgsql as $$
begin
    perform pgrun._open_session(old.session_id);
    return null;
end $$;
comment on function pgrun._leave_session() is 'Trigger: when the open run of a session ends, disappears or steps aside while it is paused, the next one may start.';

create trigger jobs_ended after update on pgrun.jobs
    for each row when (old.finished_at is null and (old.held is null or old.held = 'children') and old.session_id is not null
                       and (new.finished_at is not null or new.held = 'person') and old.multitask is distinct from 'parallel')
    execute function pgrun._leave_session();

create trigger jobs_deleted after delete on pgrun.jobs
    for each row when (old.finished_at is null and (old.held is null or old.held = 'children') and old.session_id is not null
                       and old.multitask is distinct from 'parallel')
    execute function pgrun._leave_session();

-- A run that has started others gives its slot back until the last of them has ended. It is parked in two steps, its row first.
-- Whoever ends a child takes that lock, too: either before, then the look at the children, a statement of its own, sees what that
-- transaction has committed; or after, then it finds the run parked. Returns whether it still was the caller's.
create function pgrun._park(run_id uuid, fence bigint, metrics jsonb) returns boolean language plpgsql as $$
begin
    update pgrun.jobs j
       set status = case when j.cancel_requested_at is null then 'pending' else 'cancelled' end,
           finished_at = case when j.cancel_requested_at is null then null else now() end,
           held = case when j.cancel_requested_at is null then 'children' end,
           attempt = greatest(j.attempt - 1, 0), due_at = now(), metrics = coalesce(_park.metrics, j.metrics)
     where j.run_id = _park.run_id and j.fence = _park.fence and j.status = 'running';
    if not found then
        return false;
    end if;
    perform pgrun._go_on(_park.run_id);
    perform pg_notify('pgrun_done', _park.run_id::text)
       from pgrun.jobs j where j.run_id = _park.run_id and j.finished_at is not null;
    return true;
end $$;
comment on function pgrun._park(uuid, bigint, jsonb) is 'Puts a run aside until the runs that it started have ended; false if the claim was stale.';

-- Lets a parked run go on if nothing that it started is open any more. Like _open_session it must not wait for long: the caller
-- may be a worker that has ended a child, and hold that row. What it misses open_sessions finds later.
create function pgrun._go_on(parent uuid) returns void language plpgsql set lock_timeout = '100ms' as $$
declare
    in_queue text;
begin
    perform from pgrun.jobs j where j.run_id = parent and j.finished_at is null for no key update;
    update pgrun.jobs j set held = null
     where j.run_id = parent and j.held = 'children'
       and not exists (select from pgrun.jobs c where c.parent_run_id = parent and c.finished_at is null)
    returning j.queue into in_queue;
    if found then
        perform pg_notify('pgrun_wake', in_queue);
    end if;
exception when lock_not_available then
    return;
end $$;
comment on function pgrun._go_on(uuid) is 'Lets a run that waits for its children go on once they have ended; gives up after 100 ms of waiting for a lock.';

create function pgrun._tell_parent() returns trigger language plpgsql as $$
begin
    perform pgrun._go_on(old.parent_run_id);
    return null;
end $$;
comment on function pgrun._tell_parent() is 'Trigger: when the last run that a parked one has started ends or disappears, that one goes on.';

create trigger jobs_child_ended after update on pgrun.jobs
    for each row when (old.finished_at is null and new.finished_at is not null and old.parent_run_id is not null)
    execute function pgrun._tell_parent();

create trigger jobs_child_deleted after delete on pgrun.jobs
    for each row when (old.finished_at is null and old.parent_run_id is not null)
    execute function pgrun._tell_parent();

-- What a run has started is of no use to anybody when it ends otherwise than with an answer.
create function pgrun._cancel_children() returns trigger language plpgsql as $$
begin
    perform pgrun.cancel(c.run_id) from pgrun.jobs c where c.parent_run_id = new.run_id and c.finished_at is null;
    return null;
end $$;
comment on function pgrun._cancel_children() is 'Trigger: cancels what a run has started when it fails or is cancelled.';

create trigger jobs_parent_ended after update on pgrun.jobs
    for each row when (old.finished_at is null and new.status in ('error', 'cancelled') and old.kind = 'agent')
    execute function pgrun._cancel_children();

-- An answer that the provider goes on with by itself although its run has ended, however it did: cancelled with a dead worker,
-- found dead without attempts left, ended by hand. A worker that ends a run itself leaves `call` only if it has to be stopped.
-- Workers are told at once, with a text that is no run_id. The condition costs runs without such a call nothing: it is
-- looked at where jobs_ended has its own.
create function pgrun._leave_call() returns trigger language plpgsql as $$
begin
    insert into pgrun.left_calls (run_id, response_id) values (new.run_id, new.call ->> 'response_id')
    on conflict (run_id, response_id) do nothing;
    perform pg_notify('pgrun_cancel', 'left');
    return null;
end $$;
comment on function pgrun._leave_call() is 'Trigger: notes which answer a provider still works on although the run has ended.';

create trigger jobs_left_call after update on pgrun.jobs
    for each row when (new.call is not null and new.finished_at is not null and old.finished_at is null
                       and new.call ->> 'response_id' is not null)
    execute function pgrun._leave_call();

-- The history of what went wrong, written with whatever decides on it: a retry, an end, a rescue. Giving a run back is no failure, and
-- returns the attempt. An attempt that succeeds costs the look at two columns.
create function pgrun._note_attempt() returns trigger language plpgsql as $$
begin
    insert into pgrun.attempts (run_id, fence, attempt, worker_id, started_at, duration, outcome, error_type, message, traceback,
                                retry_delay)
    values (old.run_id, old.fence, old.attempt, old.worker_id, old.started_at, extract(epoch from now() - old.started_at)::float8,
            case new.error ->> 'type' when 'LeaseLost' then 'lost' when 'AttemptTimeout' then 'timed_out' else 'failed' end,
            new.error ->> 'type', new.error ->> 'message', new.error ->> 'traceback',
            case new.status when 'pending' then greatest(extract(epoch from new.due_at - now())::float8, 0) end)
    on conflict (run_id, fence) do nothing;
    return null;
end $$;
comment on function pgrun._note_attempt() is 'Trigger: notes an attempt that failed, took too long, or was lost with its worker.';

create trigger jobs_attempted after update on pgrun.jobs
    for each row when (old.status = 'running' and new.status not in ('running', 'completed', 'paused')
                       and (new.status = 'error' or new.attempt = old.attempt)
                       and new.error is not null and (new.status <> 'cancelled' or new.error is distinct from old.error))
    execute function pgrun._note_attempt();

-- The wake-up: one notification per statement and queue, never per row, and only for runs that may start soon: pgrun_wake for what
-- is due, pgrun_soon for what will be within ten seconds. That is longer than an idle worker sleeps, so whatever is due later it
-- finds by itself. And none where a worker is awake that can
-- execute them: transactions that notify commit one after the other, so a flood of submits must not. The worker covers the
-- gap: after its promise has ended it looks again and again, at intervals that double, so that it finds what was submitted
-- silently by a transaction that took longer to commit.
create function pgrun._wake_workers() returns trigger language plpgsql as $$
begin
    perform pg_notify(case when s.due_at <= now() then 'pgrun_wake' else 'pgrun_soon' end, s.queue)
       from submitted s
      where s.status = 'pending' and s.held is null and s.due_at <= now() + interval '10 seconds'
        and not exists (select from pgrun.workers a
                         where a.awake_until > clock_timestamp() and s.queue = any (a.queues)
                           and (s.definition is not null or s.name = any (a.names)))
      group by s.queue, s.due_at <= now();
    return null;
end $$;
comment on function pgrun._wake_workers() is 'Trigger: tells listening workers which queues have got work.';

create trigger jobs_wake after insert on pgrun.jobs
    referencing new table as submitted
    for each statement execute function pgrun._wake_workers();

-- Schedules. Whoever changes one, also by hand, has its next tick computed anew and its error forgotten, and workers are told by an
-- empty pgrun_soon, which is no name of a queue. What workers write (next_at, last_at, ended_at, error) changes nothing here.
create function pgrun._reschedule() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' or (old.cron, old.every, old.at, old.timezone, old.paused_at is null)
                           is distinct from (new.cron, new.every, new.at, new.timezone, new.paused_at is null) then
        new.next_at := null;
        new.ended_at := null;
        new.changed_at := clock_timestamp();  -- a tick that was fired before this row was ours is not to count again
    end if;
    new.error := null;
    perform pg_notify('pgrun_soon', '');
    return new;
end $$;
comment on function pgrun._reschedule() is 'Trigger: has the next tick of a schedule computed that was added or changed.';

create trigger schedules_changed
    before insert or update of name, input, queue, cron, every, at, timezone, missed, options, paused_at on pgrun.schedules
    for each row execute function pgrun._reschedule();

-- Streams. Whoever adds an event to a run holds the lock of its row, a worker besides the fence (write_events.sql), so the next number
-- is free; and what a function reads is as of its own call, not as of the statement around it, which may have waited for that lock.
create function pgrun._tell_event(run_id uuid, attempt int, kind text, data jsonb, at timestamptz default clock_timestamp())
returns void language plpgsql as $$
begin
    insert into pgrun.events (run_id, seq, kind, data, attempt, created_at)
    values (_tell_event.run_id,
            coalesce((select max(e.seq) from pgrun.events e where e.run_id = _tell_event.run_id), 0) + 1,
            _tell_event.kind, _tell_event.data, _tell_event.attempt, _tell_event.at);
end $$;
comment on function pgrun._tell_event(uuid, int, text, jsonb, timestamptz) is 'Adds an event at the end of the stream of a run, whose row the caller has locked.';

-- What a stream would have told of a run that nobody read while it ran: as much as its steps know.
create function pgrun._tell_steps(run_id uuid) returns void language plpgsql as $$
declare
    step pgrun.steps;
begin
    for step in select * from pgrun.steps s where s.run_id = _tell_steps.run_id order by s.step loop
        if step.kind = 'model_call' then
            if step.data ->> 'text' <> '' then
                perform pgrun._tell_event(step.run_id, step.attempt, 'text', jsonb_build_object('text', step.data -> 'text'), step.finished_at);
            end if;
            perform pgrun._tell_event(step.run_id, step.attempt, 'model_call_completed', jsonb_build_object(
                'model', step.name, 'usage', coalesce(step.data -> 'usage', '{}'), 'duration', step.duration), step.finished_at);
        elsif step.kind = 'tool_call' then
            perform pgrun._tell_event(step.run_id, step.attempt, 'tool_call_started', jsonb_build_object(
                'call_id', step.data -> 'call_id', 'name', step.name, 'arguments', step.data -> 'arguments'),
                step.finished_at - make_interval(secs => step.duration));
            perform pgrun._tell_event(step.run_id, step.attempt, 'tool_call_completed',
                step.data - 'arguments' || jsonb_build_object('duration', step.duration), step.finished_at);
        end if;
    end loop;
end $$;
comment on function pgrun._tell_steps(uuid) is 'Adds to the stream of a run what its steps tell.';

-- What becomes of a run is told in the transaction that does it, whoever does it: so the stream agrees with the row, and an end is
-- its last event. When somebody begins to read, its present status is told, and of a run that does not go on by itself also what was
-- before; the worker of one that runs adds what it remembers of this attempt. A run that gave its slot back while its provider or the
-- runs that it has started work for it is parked, and not released: nothing is wrong with it, and nobody need take it.
create function pgrun._tell_status() returns trigger language plpgsql as $$
declare
    begins boolean := not old.streams;
    told   text := case when new.status = 'running' then 'started'
                        when new.status <> 'pending' then new.status
                        when new.held = 'children' then 'parked'
                        when new.call ? 'queued' and (begins or old.status = 'running' and new.attempt < old.attempt) then 'parked'
                        when begins then null
                        when old.status = 'paused' or old.held = 'children' then 'resumed'
                        when old.status = 'running' and new.attempt < old.attempt then 'released'
                        else 'retried' end;
begin
    if begins and told <> 'started' then
        if new.started_at is not null then
            perform pgrun._tell_event(new.run_id, new.attempt, 'started',
                                      jsonb_build_object('attempt', new.attempt, 'worker_id', new.worker_id), new.started_at);
        end if;
        perform pgrun._tell_steps(new.run_id);
    end if;
    -- An answer of which nothing was told comes in one piece; its reader may have begun when the worker had just finished.
    if told = 'completed' and new.kind = 'agent' and (begins or not exists (
            select from pgrun.events e where e.run_id = new.run_id and e.kind = 'text' and e.attempt = new.attempt)) then
        perform pgrun._tell_event(new.run_id, new.attempt, 'text', jsonb_build_object(
            'text', case when new.output_schema is null then new.output #>> '{}' else new.output::text end), new.finished_at);
    end if;
    if told is not null then
        perform pgrun._tell_event(new.run_id, case when new.status = 'pending' then old.attempt else new.attempt end, told,
            case told
                when 'started' then jsonb_build_object('attempt', new.attempt, 'worker_id', new.worker_id)
                when 'completed' then jsonb_build_object('output', new.output, 'content_type', new.content_type, 'metrics', new.metrics)
                when 'error' then jsonb_build_object('error', new.error - 'traceback', 'metrics', new.metrics)
                when 'cancelled' then jsonb_build_object('metrics', new.metrics)
                when 'paused' then jsonb_build_object('requirements', coalesce(to_jsonb(new) -> 'requirements', '[]'))
                when 'resumed' then '{}'
                when 'parked' then case when new.held = 'children' then '{"waits_for": "children"}'
                                        else jsonb_build_object('waits_for', 'provider', 'due_at', new.due_at) end
                else jsonb_build_object('error', case when old.status = 'running' then new.error - 'traceback' end, 'due_at', new.due_at)
            end,
            case when begins then coalesce(new.finished_at, new.started_at, clock_timestamp()) else clock_timestamp() end);
    end if;
    if begins and told = 'started' then
        perform pg_notify('pgrun_watch', new.run_id::text);
    end if;
    perform pg_notify('pgrun_events', new.run_id::text);
    return null;
end $$;
comment on function pgrun._tell_status() is 'Trigger: tells in the stream of a run what becomes of it.';

-- Costs a run that nobody reads the look at one column.
create trigger jobs_told after update on pgrun.jobs
    for each row when (new.streams and (old.status <> new.status or not old.streams or old.held = 'children' and new.held is null))
    execute function pgrun._tell_status();
