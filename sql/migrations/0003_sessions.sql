-- Sessions: the place of a run in its conversation, whose turn it is, and the state that the runs share.
--
-- Lock order: the row of a session first, then rows of its jobs. A worker that ends a run holds that run's row already when it
-- asks for the session; it is the one that yields, see _open_session.

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

create trigger jobs_ended after update of finished_at, held on pgrun.jobs
    for each row when (old.finished_at is null and (old.held is null or old.held = 'children') and old.session_id is not null
                       and (new.finished_at is not null or new.held = 'person') and old.multitask is distinct from 'parallel')
    execute function pgrun._leave_session();

create trigger jobs_deleted after delete on pgrun.jobs
    for each row when (old.finished_at is null and (old.held is null or old.held = 'children') and old.session_id is not null
                       and old.multitask is distinct from 'parallel')
    execute function pgrun._leave_session();

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
