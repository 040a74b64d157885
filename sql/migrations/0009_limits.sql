-- Pauses and limits of queues, and turns of keys: how many of a queue run at once on all workers together, how fast they start, and that a
-- key with many runs keeps no other waiting. A claim from such a queue locks the queue's row (claim_limited.sql), so that claims come one
-- after the other; what runs is counted in jobs by a statement that begins when the lock is had, so that it sees the claims before it.
-- No counter can be wrong, because there is none: a run counts from its claim until it is finished, retried, released,
-- parked, paused or rescued, whatever happened to its worker.
--
-- Lock order: the queue's row, its meter, then rows of jobs, of which locked ones are skipped.

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

-- What claim_runs.sql leaves to claim_limited.sql. Whether anything is pending there spares a worker of many such queues most looks.
create function pgrun._apart(queues text[]) returns jsonb language plpgsql stable as $$
begin
    return (select jsonb_object_agg(a.queue, a.keyed or exists (
                       select from pgrun.jobs j
                        where j.queue = a.queue and j.status = 'pending' and j.held is null and j.concurrency_key is null))
              from (select s.queue,
                           exists (select from pgrun.queues q where q.queue = s.queue and q.limited) as limited,
                           exists (select from pgrun.jobs j
                                    where j.queue = s.queue and j.status = 'pending' and j.held is null
                                      and j.concurrency_key is not null) as keyed
                      from unnest(queues) as s (queue)) a
             where a.limited or a.keyed);
end $$;
comment on function pgrun._apart(text[]) is
    'Which of these queues have limits, or runs that take turns, and whether any run is pending there; null: none has.';

create function pgrun._next_level(in_queue text, above int, below int default 32768) returns int language plpgsql stable as $$
begin
    return least(
        (select j.priority from pgrun.jobs j
          where j.queue = in_queue and j.priority > above and j.priority < below and j.status = 'pending' and j.held is null
            and j.concurrency_key is null
          order by j.priority limit 1),
        (select j.priority from pgrun.jobs j
          where j.queue = in_queue and j.priority > above and j.priority < below and j.status = 'pending' and j.held is null
            and j.concurrency_key is not null
          order by j.priority limit 1));
end $$;
comment on function pgrun._next_level(text, int, int) is
    'The next priority between two others of which a queue has pending runs that nothing holds; null: there is none.';

create function pgrun._first_due(in_queue text, level int, after timestamptz) returns timestamptz language plpgsql stable as $$
begin
    return least(
        (select j.due_at from pgrun.jobs j
          where j.queue = in_queue and j.priority = level and j.status = 'pending' and j.held is null and j.concurrency_key is null
            and j.due_at > after order by j.due_at limit 1),
        (select j.due_at from pgrun.jobs j
          where j.queue = in_queue and j.priority = level and j.status = 'pending' and j.held is null and j.concurrency_key is not null
            and j.due_at > after order by j.due_at limit 1));
end $$;
comment on function pgrun._first_due(text, int, timestamptz) is 'When the first pending run of one priority of a queue is due, of those that are due after a moment.';

create function pgrun._next_due(in_queue text, after timestamptz) returns timestamptz language plpgsql stable as $$
declare
    level int := -32769;
    due   timestamptz;
begin
    loop
        level := pgrun._next_level(in_queue, level);
        exit when level is null;
        due := least(due, pgrun._first_due(in_queue, level, after));
    end loop;
    return due;
end $$;
comment on function pgrun._next_due(text, timestamptz) is 'When the next run of a queue will be due after a moment; null: none is waiting for its time.';

create function pgrun._others_take(worker uuid, in_queue text, run_name text, travels boolean, daemons_only boolean)
returns boolean language plpgsql stable as $$
begin
    return exists (select from pgrun.workers o
                    where o.stopped_at is null and o.lease_until > now() and not o.draining and o.worker_id <> worker
                      and in_queue = any (o.queues) and (travels or run_name = any (o.names)) and (o.mode = 'daemon' or not daemons_only));
end $$;
comment on function pgrun._others_take(uuid, text, text, boolean, boolean) is 'Whether another live worker could execute a run.';

-- A claim from one queue. Priorities come one after the other; within one, keys take turns: the walk hops from key to key, beginning behind
-- the one that had its turn last, runs without a key being one of them (''), and of each key at most so many are taken as may run. It looks
-- at a thousand keys at most, and no further than it needs. Twice its share of the room is locked of each key, or one run if there are
-- keys enough, and then one of each is taken, a second of each, and so on.
--
-- Index entries of runs that have been claimed are in the way until vacuum removes them. So where the last claim left runs of a
-- priority, nobody asks again whether it has any, only whether something more urgent has come; and what is picked of a key begins
-- at the run that the walk has seen.
--
-- A run that is heavier than the tokens there are waits, and whatever comes after it: else light ones would keep it waiting for ever.
-- One that is heavier than burst starts when the bucket is full, and those behind it wait the longer.
--
-- Without sorts, where an index has the order: a plan that was made while there were no keys must do when there are many, and would walk
-- all of them at each step. Before Postgres 18 a plan that sorts all the same is priced for it, and would be compiled (jit).
--
-- Returns what was claimed, and one row more without a run_id, whose due_at says when it makes sense to look again; null: when somebody
-- says so, because there is room again, or something new. Its timeout says for how many seconds the claim has waited for others.
create function pgrun._claim_limited(worker uuid, in_queue text, names text[], slots int, yields boolean)
returns setof pgrun.jobs language plpgsql
set lock_timeout = '100ms' set enable_sort = off set enable_incremental_sort = off set jit = off as $$
declare
    limits  pgrun.queues;
    meter   pgrun.meters;
    look    pgrun.jobs;
    began   timestamptz := clock_timestamp();
    at      timestamptz;
    running int;
    busy    jsonb := '{}';  -- how many run, by key
    tokens  float8;
    burst   float8;
    last    text;           -- whose turn it was
    room    int := slots;
    level   int := -32769;
    left_level int;         -- the priority of which the last claim left runs, and then of which this one does
    turns   record;
    claimed uuid[] := '{}';
begin
    begin
        select q.* into limits from pgrun.queues q where q.queue = in_queue for no key update;
    exception when lock_not_available then
        look.due_at := clock_timestamp() + interval '50 ms';
        look.timeout := extract(epoch from clock_timestamp() - began);
        return next look;
        return;
    end;
    at := clock_timestamp();
    look.timeout := extract(epoch from at - began);
    if limits.queue is null then  -- somebody has deleted it
        insert into pgrun.queues (queue) values (in_queue) on conflict do nothing;
        look.due_at := at;
        return next look;
        return;
    elsif limits.paused_at is not null and (limits.resume_at is null or limits.resume_at > at) then
        look.due_at := limits.resume_at;
        return next look;
        return;
    elsif not exists (select from pgrun.workers w where w.worker_id = worker and w.stopped_at is null) then
        return next look;
        return;
    end if;

    select m.* into meter from pgrun.meters m where m.queue = in_queue;
    last := coalesce(meter.last_key, '');
    left_level := meter.level;
    if limits.concurrency is not null or limits.key_concurrency is not null then
        select coalesce(sum(r.many), 0), coalesce(jsonb_object_agg(r.key, r.many) filter (where r.key is not null), '{}')
          into running, busy
          from (select j.concurrency_key as key, count(*) as many from pgrun.jobs j
                 where j.status = 'running' and j.queue = in_queue group by 1) r;
        room := least(room, limits.concurrency - running);
    end if;
    tokens := pgrun._tokens(limits.rate, limits.per, limits.burst, meter.tokens, meter.read_at, at);
    burst := coalesce(limits.burst, greatest(limits.rate, 1));
    if tokens is not null then
        room := least(room, greatest(floor(tokens), 0) + 1);  -- one more, to know what that one waits for
    end if;

    while room > 0 loop
        level := coalesce(pgrun._next_level(in_queue, level, coalesce(left_level, 32768)), left_level);
        if level is null then
            look.due_at := pgrun._next_due(in_queue, at);
            exit;
        elsif level = left_level then
            left_level := null;
        elsif pgrun._first_due(in_queue, level, '-infinity') > at then
            continue;
        end if;
        with recursive above (key, due_at, run_id, step) as (
            select last, null::timestamptz, null::uuid, 0
            union all
            select k.*, a.step + 1
              from above a
             cross join lateral (
                select j.concurrency_key, j.due_at, j.run_id from pgrun.jobs j
                 where j.queue = in_queue and j.priority = level and j.status = 'pending' and j.held is null
                   and j.concurrency_key > a.key
                 order by j.concurrency_key, j.due_at, j.run_id limit 1) k
             where a.step < 1000),
        below (key, due_at, run_id, step) as (
            select '', k.due_at, k.run_id, passed.keys
              from (select count(*)::int from above) passed (keys)
              left join lateral (
                select j.due_at, j.run_id from pgrun.jobs j
                 where j.queue = in_queue and j.priority = level and j.status = 'pending' and j.held is null
                   and j.concurrency_key is null
                 order by j.due_at, j.run_id limit 1) k on true
             where passed.keys <= 1000
            union all
            select k.*, b.step + 1
              from below b
             cross join lateral (
                select j.concurrency_key, j.due_at, j.run_id from pgrun.jobs j
                 where j.queue = in_queue and j.priority = level and j.status = 'pending' and j.held is null
                   and j.concurrency_key > b.key and j.concurrency_key <= last
                 order by j.concurrency_key, j.due_at, j.run_id limit 1) k
             where b.step < 1000),
        walk as (select * from above union all select * from below),
        groups as materialized (
            select f.* from (
                select w.*,
                       least(room, case when w.key <> '' then limits.key_concurrency - coalesce((busy ->> w.key)::int, 0) end) as free
                  from walk w) f
             where f.due_at <= at and f.free > 0
             limit room + 10),
        share as materialized (
            select case when count(*) < room then ceil(2.0 * room / greatest(count(*), 1))::int else 1 end as most from groups),
        picked as (
            select g.key, g.step, g.free, p.*
              from groups g
             cross join lateral (
                select k.*, row_number() over () as round from (
                    select j.run_id, coalesce(j.weight, 1) as weight from pgrun.jobs j
                     where j.queue = in_queue and j.priority = level and j.status = 'pending' and j.held is null
                       and j.concurrency_key = g.key
                       and (j.due_at, j.run_id) >= (g.due_at, g.run_id) and j.due_at <= at
                       and (j.expires_at is null or pgrun._starts_until(j) is null or j.expires_at > at)
                       and (j.definition is not null or j.name = any (names) or not pgrun._others_take(worker, in_queue, j.name, false, false))
                       and not (yields and pgrun._others_take(worker, in_queue, j.name, j.definition is not null, true))
                     order by j.due_at, j.run_id
                     limit least(g.free, (select most from share))
                       for update skip locked) k) p
             where g.key <> ''
            union all
            select g.key, g.step, g.free, p.*
              from groups g
             cross join lateral (
                select k.*, row_number() over () as round from (
                    select j.run_id, coalesce(j.weight, 1) as weight from pgrun.jobs j
                     where j.queue = in_queue and j.priority = level and j.status = 'pending' and j.held is null
                       and j.concurrency_key is null
                       and (j.due_at, j.run_id) >= (g.due_at, g.run_id) and j.due_at <= at
                       and (j.expires_at is null or pgrun._starts_until(j) is null or j.expires_at > at)
                       and (j.definition is not null or j.name = any (names) or not pgrun._others_take(worker, in_queue, j.name, false, false))
                       and not (yields and pgrun._others_take(worker, in_queue, j.name, j.definition is not null, true))
                     order by j.due_at, j.run_id
                     limit least(g.free, (select most from share))
                       for update skip locked) k) p
             where g.key = ''),
        ordered as (
            select p.*, row_number() over turn as place, tokens - sum(p.weight) over turn + p.weight as left_to_it
              from picked p window turn as (order by p.round, p.step)),
        decided as (
            select o.*, bool_and(coalesce(o.left_to_it >= least(o.weight, burst), true))
                            over (order by o.place) as starts
              from ordered o where o.place <= room)
        select coalesce(array_agg(d.run_id) filter (where d.starts), '{}') as run_ids,
               coalesce(sum(d.weight) filter (where d.starts), 0) as weight,
               -- what the first that does not start is short of
               (array_agg(least(d.weight, burst) - d.left_to_it order by d.place)
                    filter (where not d.starts))[1] as short,
               coalesce((array_agg(d.key order by d.place desc) filter (where d.starts))[1],
                        (select g.key from groups g order by g.step desc limit 1),
                        (select w.key from walk w order by w.step desc limit 1)) as last_key,
               (select bool_or(p.round = s.most and p.round < p.free) from picked p, share s) as more,
               (select count(*) from groups) = room + 10
                   or not exists (select from groups) and (select count(*) from walk) > 1000 as passed
          into turns
          from decided d;
        claimed := claimed || turns.run_ids;
        room := room - cardinality(turns.run_ids);
        tokens := tokens - turns.weight;
        if turns.run_ids <> '{}' or turns.passed then
            last := turns.last_key;
        end if;
        if turns.run_ids <> '{}' and (room = 0 or turns.short is not null or turns.more or turns.passed) then
            left_level := level;
        end if;
        if turns.short is not null then
            look.due_at := at + make_interval(secs => turns.short / limits.rate * extract(epoch from limits.per)::float8);
            exit;
        elsif room > 0 and (turns.more or turns.passed) then
            look.due_at := at + case when claimed = '{}' then interval '50 ms' else '0' end;
            exit;
        end if;
    end loop;

    if last <> coalesce(meter.last_key, '') or left_level is distinct from meter.level or limits.rate is not null and claimed <> '{}' then
        insert into pgrun.meters as m (queue, last_key, level, tokens, read_at)
        values (in_queue, last, left_level, tokens, at)
        on conflict (queue) do update
            set last_key = excluded.last_key, level = excluded.level, tokens = excluded.tokens, read_at = excluded.read_at;
    end if;
    return query
        update pgrun.jobs j
           set status = 'running', attempt = j.attempt + 1, fence = j.fence + 1, worker_id = worker, started_at = at,
               limited = nullif(limits.concurrency is not null or limits.key_concurrency is not null, false)
         where j.run_id = any (claimed)
        returning j.*;
    return next look;
end $$;
comment on function pgrun._claim_limited(uuid, text, text[], int, boolean) is
    'Takes due runs of one queue for a worker, within the limits of the queue and in turn of their keys; and says when to look again.';

-- When a run that was claimed under limits runs no more, whatever became of it, another may start. Runs that others end in the same
-- transaction cost no second notification.
create function pgrun._make_room() returns trigger language plpgsql as $$
begin
    perform pg_notify('pgrun_wake', old.queue);
    return null;
end $$;
comment on function pgrun._make_room() is 'Trigger: tells workers that a queue with limits has room again.';

-- Costs a run without limits the look at one column.
create trigger jobs_left_room after update of status on pgrun.jobs
    for each row when (old.limited and old.status = 'running' and new.status <> 'running')
    execute function pgrun._make_room();

-- Limits may be changed at any time, with plain updates too. The row's lock puts the change before or after a claim; runs that run already
-- go on, even if they are more than may from now on.
create function pgrun._settle_meter() returns trigger language plpgsql as $$
begin
    update pgrun.meters m
       set tokens = pgrun._tokens(old.rate, old.per, old.burst, m.tokens, m.read_at, clock_timestamp()), read_at = clock_timestamp()
     where m.queue = old.queue;
    return new;
end $$;
comment on function pgrun._settle_meter() is 'Trigger: what was earned at the old rate of a queue is counted at the old rate.';

create trigger queues_settle before update on pgrun.queues
    for each row when (old.rate is not null and (old.rate, old.per, old.burst) is distinct from (new.rate, new.per, new.burst))
    execute function pgrun._settle_meter();

create function pgrun._tell_of_queue() returns trigger language plpgsql as $$
begin
    perform pg_notify('pgrun_soon', new.queue);
    return null;
end $$;
comment on function pgrun._tell_of_queue() is 'Trigger: tells workers that a queue has other limits, or is paused or resumed.';

-- Not of a pause that somebody has to end.
create trigger queues_changed after update on pgrun.queues
    for each row when (old.* is distinct from new.* and (new.paused_at is null or new.resume_at is not null))
    execute function pgrun._tell_of_queue();

-- For a person who asks why nothing happens. The first reason that holds, from the run itself over its queue to the workers.
create function pgrun.why(run_id uuid) returns text language plpgsql stable as $$
declare
    job     pgrun.jobs;
    limits  pgrun.queues;
    meter   pgrun.meters;
    other   pgrun.jobs;
    many    bigint;
    tokens  float8;
begin
    select * into job from pgrun.jobs j where j.run_id = why.run_id;
    if job.status = 'paused' then
        return 'A person has to decide: pgrun.approve(run_id).';
    elsif job.status is distinct from 'pending' then
        return null;
    elsif job.held = 'session' then
        select * into other from pgrun.jobs j
         where j.session_id = job.session_id and j.finished_at is null and j.session_seq < job.session_seq
           and j.held is distinct from 'person' and j.multitask is distinct from 'parallel'
         order by j.session_seq limit 1;
        return format('Before it comes run %s of its session "%s", which is %s.', other.run_id, job.session_id, other.status);
    elsif job.held = 'children' then
        select count(*) into many from pgrun.jobs j where j.parent_run_id = job.run_id and j.finished_at is null;
        return format('It waits for runs that it has started: %s.', many);
    elsif job.due_at > now() then
        return format('It is due in %s%s.', date_trunc('milliseconds', job.due_at - now()),
                      case when job.error is not null then ', after ' || coalesce(job.error ->> 'message', job.error ->> 'type') else '' end);
    end if;

    select * into limits from pgrun.queues q where q.queue = job.queue;
    if limits.paused_at is not null and (limits.resume_at is null or limits.resume_at > now()) then
        return format('Queue "%s" is paused%s.', job.queue, ' until ' || limits.resume_at);
    end if;
    select count(*) into many from pgrun.jobs j where j.status = 'running' and j.queue = job.queue;
    if many >= limits.concurrency then
        return format('Queue "%s" runs %s at once, as many as its concurrency says.', job.queue, many);
    end if;
    select count(*) into many from pgrun.jobs j
     where j.status = 'running' and j.queue = job.queue and j.concurrency_key = job.concurrency_key;
    if many >= limits.key_concurrency and job.concurrency_key is not null then
        return format('Key "%s" runs %s at once, as many as key_concurrency of queue "%s" says.', job.concurrency_key, many, job.queue);
    end if;
    select m.* into meter from pgrun.meters m where m.queue = job.queue;
    tokens := pgrun._tokens(limits.rate, limits.per, limits.burst, meter.tokens, meter.read_at, clock_timestamp());
    if tokens < least(coalesce(job.weight, 1), coalesce(limits.burst, greatest(limits.rate, 1))) then
        return format('Queue "%s" starts %s per %s: the rate lets a run of this weight start in %s s, if none comes before it.',
                      job.queue, limits.rate, limits.per,
                      round(((least(coalesce(job.weight, 1), coalesce(limits.burst, greatest(limits.rate, 1))) - tokens)
                             / limits.rate * extract(epoch from limits.per)::float8)::numeric, 3));
    end if;

    if not exists (select from pgrun.workers w where w.stopped_at is null and w.lease_until > now() and job.queue = any (w.queues)) then
        return format('No worker serves queue "%s".', job.queue);
    elsif not exists (select from pgrun.workers w
                       where w.stopped_at is null and w.lease_until > now() and job.queue = any (w.queues)
                         and (job.definition is not null or job.name = any (w.names))) then
        return format('No worker of queue "%s" has imported "%s".', job.queue, job.name);
    elsif not exists (select from pgrun.worker_status w
                       where w.state = 'alive' and w.running < w.concurrency and job.queue = any (w.queues)) then
        return format('All workers of queue "%s" are busy.', job.queue);
    end if;
    return 'A worker is about to take it.';
end $$;
comment on function pgrun.why(uuid) is 'Why a run is not executed at present, in words: what holds it, its time, a pause, a limit, or no worker. Null if it runs or has ended.';
