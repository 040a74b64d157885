-- Schedules: what is submitted by itself, at moments.

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
