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
    if new.kind = 'agent' and new.session_id is null then
        new.session_id := new.run_id::text;  -- a conversation of its own, which a later run may join
    end if;
    return new;
end $$;
comment on function pgrun._identify() is 'Trigger: fills kind, definition, output_schema and session_id of a run that was inserted by name alone.';

-- Triggers fire in alphabetical order: jobs_identify before jobs_session, because it may choose the session.
create trigger jobs_identify before insert on pgrun.jobs
    for each row when (new.kind is null)
    execute function pgrun._identify();

-- Its place in the session. The upsert locks the session's row until the submitter commits, so concurrent submissions queue up
-- here and get their numbers in commit order. Statements of a plpgsql function see what was committed before each of
-- them began, so the look at earlier runs happens after the lock was had, not before. A repeated submission comes here too, before
-- its conflict is noticed, and must not use up a number.
create function pgrun._take_place_in_session() returns trigger language plpgsql as $$
begin
    if exists (select from pgrun.jobs j where j.run_id = new.run_id) then
        return new;
    end if;
    insert into pgrun.sessions as s (session_id, session_table, last_seq) values (new.session_id, new.session_table, 1)
        on conflict (session_id) do update set last_seq = s.last_seq + 1, updated_at = now()
        returning last_seq into new.session_seq;
    if new.status = 'pending'
       and exists (select from pgrun.jobs j where j.session_id = new.session_id and j.finished_at is null) then
        new.held := 'session';
    end if;
    return new;
end $$;
comment on function pgrun._take_place_in_session() is 'Trigger: numbers a run within its session and holds it while an earlier one is open.';

create trigger jobs_session before insert on pgrun.jobs
    for each row when (new.session_id is not null)
    execute function pgrun._take_place_in_session();

-- Lets the next run of a session start, if nothing that is not held is open in it. Returns the id of that run, or null.
-- It must not wait for long: the caller is a worker writing results, the lock may be held by a submitter's own long
-- transaction. After 100 ms it gives up, and pgrun.open_sessions() finds the run later.
create function pgrun._open_session(session text) returns uuid language plpgsql set lock_timeout = '100ms' as $$
declare
    opened uuid;
    in_queue text;
begin
    perform from pgrun.sessions s where s.session_id = session for update;
    update pgrun.jobs
       set held = null
     where run_id = (select j.run_id from pgrun.jobs j
                      where j.session_id = session and j.finished_at is null and j.held = 'session'
                      order by j.session_seq limit 1 for update)
       and not exists (select from pgrun.jobs j
                        where j.session_id = session and j.finished_at is null and j.held is null)
    returning run_id, queue into opened, in_queue;
    if opened is not null then
        perform pg_notify('pgrun_wake', in_queue);
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
comment on function pgrun._leave_session() is 'Trigger: when the open run of a session ends or disappears, the next one may start.';

create trigger jobs_ended after update on pgrun.jobs
    for each row when (old.finished_at is null and old.held is null and new.finished_at is not null and old.session_id is not null)
    execute function pgrun._leave_session();

create trigger jobs_deleted after delete on pgrun.jobs
    for each row when (old.finished_at is null and old.held is null and old.session_id is not null)
    execute function pgrun._leave_session();

-- The wake-up: one notification per statement and queue, never per row, and only for runs that may start soon. Ten seconds is
-- longer than an idle worker sleeps, so whatever is due later it finds by itself. And none where a worker is awake that can
-- execute them: transactions that notify commit one after the other, so a flood of submits must not. The worker covers the
-- gap: after its promise has ended it looks again and again, at intervals that double, so that it finds what was submitted
-- silently by a transaction that took longer to commit.
create function pgrun._wake_workers() returns trigger language plpgsql as $$
begin
    perform pg_notify('pgrun_wake', s.queue)
       from submitted s
      where s.status = 'pending' and s.held is null and s.due_at <= now() + interval '10 seconds'
        and not exists (select from pgrun.workers a
                         where a.awake_until > clock_timestamp() and s.queue = any (a.queues)
                           and (s.definition is not null or s.name = any (a.names)))
      group by s.queue;
    return null;
end $$;
comment on function pgrun._wake_workers() is 'Trigger: tells listening workers which queues have got work.';

create trigger jobs_wake after insert on pgrun.jobs
    referencing new table as submitted
    for each statement execute function pgrun._wake_workers();

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
-- before; the worker of one that runs adds what it remembers of this attempt.
create function pgrun._tell_status() returns trigger language plpgsql as $$
declare
    begins boolean := not old.streams;
    told   text := case when new.status = 'running' then 'started'
                        when new.status <> 'pending' then new.status
                        when begins then null
                        when old.status = 'paused' then 'resumed'
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
                when 'error' then jsonb_build_object('error', new.error, 'metrics', new.metrics)
                when 'cancelled' then jsonb_build_object('metrics', new.metrics)
                when 'paused' then jsonb_build_object('requirements', coalesce(to_jsonb(new) -> 'requirements', '[]'))
                when 'resumed' then '{}'
                else jsonb_build_object('error', case when old.status = 'running' then new.error end, 'due_at', new.due_at)
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
    for each row when (new.streams and (old.status <> new.status or not old.streams))
    execute function pgrun._tell_status();
