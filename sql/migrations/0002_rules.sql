-- The rules that hold whoever writes, a library call or a person in psql: who a run is, what is kept of failed attempts and of
-- answers that nobody wants any more, and the wake-up of workers. Those of sessions, children and streams follow.
--
-- Triggers on update name the columns without which nothing can have happened that concerns them. Postgres reads the condition of a
-- trigger anew in each statement, for 5 µs, but not of one whose columns are not set: a claim and a step pay for two or none.

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

create trigger jobs_left_call after update of finished_at on pgrun.jobs
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

create trigger jobs_attempted after update of error on pgrun.jobs
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
