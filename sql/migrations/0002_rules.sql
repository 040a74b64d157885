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
        on conflict (session_id) do update set last_seq = s.last_seq + 1, updated_at = now()
        returning last_seq into new.session_seq;
    if new.status <> 'pending' or new.multitask = 'parallel' then
        return new;
    end if;
    if new.multitask is not null and not exists (select from pgrun.jobs j where j.run_id = new.run_id) then
        perform pgrun._make_way(new.session_id, new.multitask);
    end if;
    if exists (select from pgrun.jobs j
                where j.session_id = new.session_id and j.finished_at is null and j.multitask is distinct from 'parallel') then
        new.held := 'session';
    end if;
    return new;
end $$;
comment on function pgrun._take_place_in_session() is 'Trigger: numbers a run within its session and holds it while an earlier one is open, or does what its multitask says.';

-- For a run that is not to queue up. Called with the session's row locked. The last comes first: when the run that holds the
-- session ends, none must be left behind it that this would let start.
create function pgrun._make_way(session text, multitask text) returns void language plpgsql as $$
declare
    busy record;
begin
    for busy in select j.run_id, j.status from pgrun.jobs j
                 where j.session_id = session and j.finished_at is null and j.multitask is distinct from 'parallel'
                 order by j.session_seq desc
    loop
        if _make_way.multitask = 'reject' then
            raise exception 'session "%" is busy: its run % is %', session, busy.run_id, busy.status using errcode = 'PGR03';
        end if;
        update pgrun.jobs j set superseded = _make_way.multitask where j.run_id = busy.run_id and j.finished_at is null;
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
begin
    perform from pgrun.sessions s where s.session_id = session for update;
    update pgrun.jobs
       set held = null
     where run_id = (select j.run_id from pgrun.jobs j
                      where j.session_id = session and j.finished_at is null and j.held = 'session'
                      order by j.session_seq limit 1 for update)
       and not exists (select from pgrun.jobs j
                        where j.session_id = session and j.finished_at is null and j.held is null
                          and j.multitask is distinct from 'parallel')
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
    for each row when (old.finished_at is null and old.held is null and new.finished_at is not null and old.session_id is not null
                       and old.multitask is distinct from 'parallel')
    execute function pgrun._leave_session();

create trigger jobs_deleted after delete on pgrun.jobs
    for each row when (old.finished_at is null and old.held is null and old.session_id is not null
                       and old.multitask is distinct from 'parallel')
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
