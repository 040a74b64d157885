-- Streams: what happens to a run, told in events to those who read along.

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
create trigger jobs_told after update of status, streams, held on pgrun.jobs
    for each row when (new.streams and (old.status <> new.status or not old.streams or old.held = 'children' and new.held is null))
    execute function pgrun._tell_status();

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
