-- The tables of pgrun: runs are rows of `jobs`; everything else says who works on them and in which order.
--
-- Applied by `pgrun migrate` (or at first use) in one transaction under an advisory lock. All moments are the
-- database's clock. `pgrun` in these files is the schema's name; another one is put in its place when it is configured.

-- `create schema if not exists` asks for the right to create even when the schema is there.
do $$
begin
    if not exists (select from pg_namespace where oid = to_regnamespace('pgrun')) then
        create schema pgrun;
    end if;
end $$;

create table pgrun.migrations (
    number     int primary key,
    name       text not null,
    applied_at timestamptz not null default now()
);
comment on table  pgrun.migrations is 'Which files of sql/migrations have been applied; the highest number is the version of the schema.';
comment on column pgrun.migrations.number is 'Number at the start of the file name.';
comment on column pgrun.migrations.name is 'File name without number and ending.';
comment on column pgrun.migrations.applied_at is 'When it was applied.';

-- Time-ordered ids (UUIDv7, RFC 9562): new rows land at one end of the primary key. PostgreSQL has them built in since 18.
do $$
begin
    if current_setting('server_version_num')::int >= 180000 then
        execute 'create function pgrun.new_run_id() returns uuid language sql volatile parallel safe return uuidv7()';
    else
        execute $sql$
            create function pgrun.new_run_id() returns uuid language sql volatile parallel safe
            return (select (lpad(to_hex(t.us / 1000), 12, '0')                              -- 48 bits: milliseconds
                            || '7'                                                          --  4 bits: version
                            || lpad(to_hex(t.us % 1000 * 4096 / 1000), 3, '0')              -- 12 bits: the fraction of one
                            || substr(replace(gen_random_uuid()::text, '-', ''), 17))::uuid -- variant and 62 random bits
                      from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as us) t)
        $sql$;
    end if;
end $$;
comment on function pgrun.new_run_id() is 'A new UUIDv7: ids made later sort after ids made earlier.';

create table pgrun.jobs (
    run_id              uuid primary key default pgrun.new_run_id(),
    kind                text not null check (kind in ('agent', 'task')),
    name                text not null check (name <> ''),
    queue               text not null default 'default' check (queue <> ''),
    status              text not null default 'pending'
                        check (status in ('pending', 'running', 'paused', 'completed', 'error', 'cancelled')),
    held                text check (held in ('session', 'children', 'person')),
    priority            smallint not null default 0,
    due_at              timestamptz not null default now(),
    expires_at          timestamptz,
    deadline_at         timestamptz,
    timeout             float8 check (timeout > 0),
    attempt             smallint not null default 0 check (attempt >= 0),
    max_attempts        smallint not null default 5 check (max_attempts > 0),
    fence               bigint not null default 0,
    worker_id           uuid,
    session_id          text check (session_id <> ''),
    session_seq         bigint,
    session_table       text,
    multitask           text check (multitask in ('reject', 'interrupt', 'rollback', 'parallel')),
    superseded          text check (superseded in ('interrupt', 'rollback')),
    parent_run_id       uuid,
    key                 text check (key <> ''),
    key_scope           text check (key_scope in ('pending', 'unfinished', 'period', 'ever')),
    key_until           timestamptz,
    resubmitted_as      uuid,
    input               jsonb not null default '{}',
    definition          jsonb,
    output_schema       jsonb,
    output              jsonb,
    content_type        text,
    error               jsonb,
    metrics             jsonb not null default '{}',
    tools               jsonb,
    requirements        jsonb,
    begun               jsonb,
    call                jsonb,
    steering            jsonb check (jsonb_typeof(steering) = 'array'),
    context             jsonb check (jsonb_typeof(context) = 'object'),
    state_undo          jsonb check (jsonb_typeof(state_undo) = 'object'),
    progress            jsonb check (jsonb_typeof(progress) = 'object'),
    metadata            jsonb not null default '{}',
    tags                text[],
    concurrency_key     text check (concurrency_key <> ''),
    weight              int check (weight > 0),
    limited             boolean,
    streams             boolean not null default false,
    cancel_requested_at timestamptz,
    created_at          timestamptz not null default now(),
    started_at          timestamptz,
    paused_at           timestamptz,
    finished_at         timestamptz,
    constraint key_is_held check (key_scope is null or key is not null and (key_scope = 'period') = (key_until is not null)),
    constraint held_is_open check (held is null or status = case held when 'person' then 'paused' else 'pending' end),
    constraint finished_is_final check ((finished_at is not null) = (status in ('completed', 'error', 'cancelled')))
)
-- Every claim from the first run walks over the entries of jobs_due that are left of the runs before. Postgres by itself would not
-- clear indexes away as long as less than a fiftieth of the table has changed, and not even vacuum before a fifth has.
with (vacuum_index_cleanup = on, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_scale_factor = 0.005);
comment on table  pgrun.jobs is 'One row per run: a request to an agent or a task, who works on it, and its answer.';
comment on column pgrun.jobs.run_id is 'Id of the run, a UUIDv7.';
comment on column pgrun.jobs.kind is 'What is executed: agent or task. Filled in from the name when it is not given.';
comment on column pgrun.jobs.name is 'Name of the agent or task.';
comment on column pgrun.jobs.queue is 'The queue by which workers choose runs.';
comment on column pgrun.jobs.status is 'pending, running or paused while it is open; completed, error or cancelled when it has ended.';
comment on column pgrun.jobs.held is 'Why it does not go on: session = it is pending, and another run of its session is open; children = it is pending, and the runs that it has started are open; person = it is paused, and lets the other runs of its session go on meanwhile. Null: nothing holds it.';
comment on column pgrun.jobs.priority is 'Smaller runs first; 0 is the usual.';
comment on column pgrun.jobs.due_at is 'Not before this moment. A retry moves it into the future.';
comment on column pgrun.jobs.expires_at is 'If nobody has started it by then it is cancelled, with the error RunExpired. Null: it waits as long as it takes.';
comment on column pgrun.jobs.deadline_at is 'If it has not ended by then it ends in error, DeadlineExceeded: all attempts and the time between them. Null: none.';
comment on column pgrun.jobs.timeout is 'Seconds that one attempt may take; after them it has failed (AttemptTimeout). Null: what its task was declared with, if anything.';
comment on column pgrun.jobs.attempt is 'Attempts used so far, the current one included. Giving a run back at shutdown returns the attempt.';
comment on column pgrun.jobs.max_attempts is 'After this many attempts a failure is final.';
comment on column pgrun.jobs.fence is 'Rises with every claim and never falls; a write that carries an older one changes nothing.';
comment on column pgrun.jobs.worker_id is 'The worker that holds the run, or held it last.';
comment on column pgrun.jobs.session_id is 'The conversation this run belongs to; its runs execute one at a time, in order, unless multitask says otherwise.';
comment on column pgrun.jobs.session_seq is 'Place within the session, counted from 1 in the order of submission.';
comment on column pgrun.jobs.session_table is 'Which sessions view its session is to appear in; null: only in sessions itself.';
comment on column pgrun.jobs.multitask is 'What it did when it was submitted into a busy session. Null: it queued up. reject: it would not have been stored. interrupt, rollback: it cancelled what was open. parallel: it neither waits for its session nor holds it.';
comment on column pgrun.jobs.superseded is 'A later run of its session cancelled it: interrupt = what it had done stays, rollback = it is as if it had never been. Null: none did.';
comment on column pgrun.jobs.parent_run_id is 'The run that started this one, if any.';
comment on column pgrun.jobs.key is 'What it is about, in the words of who submitted it: of runs with the same name and key one is stored at a time, see key_scope. Null: no such thing.';
comment on column pgrun.jobs.key_scope is 'How long it holds its key: pending = until it is started for the first time, unfinished = until it has ended, period = until key_until, ever = as long as the row is kept. Null: it holds none.';
comment on column pgrun.jobs.key_until is 'It holds its key until then at least; whoever submits the same key later takes it over. Null: key_scope says otherwise.';
comment on column pgrun.jobs.resubmitted_as is 'The run_id that the latest submission under its key would have had, which has replaced its input: a repeat of that one is recognised by it. Null: none has.';
comment on column pgrun.jobs.input is 'What was asked: a JSON string, a list of messages, or an object.';
comment on column pgrun.jobs.definition is 'Everything a worker without user code needs to execute an agent: model, instructions, retry policy. Null: needs imported code, as tasks and agents with tools do.';
comment on column pgrun.jobs.output_schema is 'JSON Schema that the output must match. Null: plain text.';
comment on column pgrun.jobs.output is 'The validated answer; only completed runs have one.';
comment on column pgrun.jobs.content_type is 'Name of the type of the output, str for plain text.';
comment on column pgrun.jobs.error is 'Last failure: type, message, attempt and what else is known (raw, code, retry_after in seconds, traceback). Null once completed.';
comment on column pgrun.jobs.metrics is 'Tokens and seconds used, all recorded attempts together; time_to_first_token: of the first answer that came in pieces; last_answer: provider, model, response_id and rate_limits of the last one; children: what the runs that it started have used.';
comment on column pgrun.jobs.tools is 'What the run called: a list of call_id, name, arguments, result or error, duration in seconds. Null: nothing.';
comment on column pgrun.jobs.requirements is 'What the run has waited for a person for: a list of kind (confirmation, user_input, external, repeat), step, call_id, name, arguments, fields, times; with the decision, once there is one: approved, note, result, input, decided_by, decided_at, decision_id. Null: nothing.';
comment on column pgrun.jobs.begun is 'Calls of unsafe tools that have begun and whose end is not recorded, by the step they are: name, times (how often), at. Of a run that nobody executes: they may have happened.';
comment on column pgrun.jobs.call is 'The call of the model that is under way, where that is known: step, response_id once the provider goes on with it by itself, and queued: true while the run has given its slot back because the provider has not begun. Whoever takes over asks for that answer, and not for a new one.';
comment on column pgrun.jobs.steering is 'What was said to the run while it was open, see pgrun.steer: a list of message_id, content and sent_at, which only grows. Null: nothing.';
comment on column pgrun.jobs.context is 'What an agent is told beside the input: user_id, dependencies, session_state (merged into that of the session when the run begins), images, files. Null: nothing.';
comment on column pgrun.jobs.state_undo is 'What the run has changed in the state of its session: of each key the value before and after, for a rollback. Null: nothing.';
comment on column pgrun.jobs.progress is 'How far it says that it has come: fraction from 0 to 1, done, total, message, updated_at; what is not known is left out. Null: it has said nothing.';
comment on column pgrun.jobs.metadata is 'Whatever the submitter wants to find again.';
comment on column pgrun.jobs.tags is 'Words to find it by: where tags @> array[''import'']. Null: none.';
comment on column pgrun.jobs.concurrency_key is 'Runs of a queue that have keys start key by key in turn, and of each key as many at once as queues.key_concurrency says. Null: it counts for the queue only, and takes turns with the keys like one of them.';
comment on column pgrun.jobs.weight is 'How much of its queue''s rate its start uses up. Null: 1.';
comment on column pgrun.jobs.limited is 'It was claimed from a queue of which only so many run at once: when it runs no more, others may wait for its place, and workers are told. Null: it was not.';
comment on column pgrun.jobs.streams is 'Somebody reads along, or did: what happens to the run is told in events.';
comment on column pgrun.jobs.cancel_requested_at is 'Someone asked to cancel; the worker that holds the run stops it.';
comment on column pgrun.jobs.created_at is 'Submitted.';
comment on column pgrun.jobs.started_at is 'The latest attempt began.';
comment on column pgrun.jobs.paused_at is 'It waits for a person since then, or did until it was cancelled. Null: it does not.';
comment on column pgrun.jobs.finished_at is 'It ended. Null exactly while the run is open.';

-- Claim: due runs of one queue in the order they are taken.
create index jobs_due on pgrun.jobs (queue, priority, due_at, run_id)
    where status = 'pending' and held is null and concurrency_key is null;
-- The same for runs with a key, which take turns: key by key, and whether any of them is due at all. Empty where there are no keys.
create index jobs_keyed on pgrun.jobs (queue, priority, concurrency_key, due_at, run_id)
    where status = 'pending' and held is null and concurrency_key is not null;
create index jobs_keyed_due on pgrun.jobs (queue, priority, due_at)
    where status = 'pending' and held is null and concurrency_key is not null;
-- Rescue, heartbeat and worker_status: what each worker holds.
create index jobs_running on pgrun.jobs (worker_id) where status = 'running';
-- Sessions: is an earlier run open, and which one comes next.
create index jobs_session on pgrun.jobs (session_id, session_seq) where finished_at is null and session_id is not null;
-- History: what was said in a session, for the next run of it; get_history.sql has the same condition.
create index jobs_history on pgrun.jobs (session_id, session_seq)
    where kind = 'agent' and (status = 'completed' or superseded = 'interrupt');
-- Runs that others started: have all of them ended, and which are to be cancelled with the one that did.
create index jobs_children on pgrun.jobs (parent_run_id) where parent_run_id is not null;
-- queue_stats, failures and retention: what ended when.
create index jobs_finished on pgrun.jobs (finished_at) where finished_at is not null;
-- What failed, however much has completed: failures, and those who retry many of them.
create index jobs_failed on pgrun.jobs (finished_at) where status = 'error';
-- Retention of events: whose there may be. Empty where nobody reads along.
create index jobs_streamed on pgrun.jobs (finished_at) where streams and finished_at is not null;
-- Keys: one run at a time. The same condition is in _submit. Rows without a key pay the look at one column, as with those below.
create unique index jobs_key on pgrun.jobs (name, key)
    where key_scope is not null
      and case key_scope when 'pending' then started_at is null and finished_at is null when 'unfinished' then finished_at is null else true end;
-- A submission that has replaced the input of a run, and is repeated because its answer was lost.
create index jobs_resubmitted on pgrun.jobs (resubmitted_as) where resubmitted_as is not null;
-- Expiry: whose time is up, and when the next one is. The expression is _ends_at.
create index jobs_limited on pgrun.jobs (least(deadline_at, case when started_at is null or attempt = 0 and error ->> 'type' = 'UnknownName' then expires_at end))
    where status in ('pending', 'paused') and (expires_at is not null or deadline_at is not null);

create table pgrun.steps (
    run_id      uuid not null references pgrun.jobs on delete cascade,
    step        int not null check (step > 0),
    kind        text not null check (kind in ('model_call', 'tool_call', 'message', 'state', 'hook', 'step', 'sleep')),
    name        text not null,
    attempt     smallint not null,
    data        jsonb not null,
    duration    float8 not null,
    finished_at timestamptz not null default now(),
    primary key (run_id, step)
);
comment on table  pgrun.steps is 'The journal of runs, append only: what an attempt that takes over need not do and pay for again. The last answer of a completed run is in jobs alone.';
comment on column pgrun.steps.run_id is 'Whose step it is.';
comment on column pgrun.steps.step is 'Its place in the run, counted from 1 in the order in which steps began.';
comment on column pgrun.steps.kind is 'A call of the model or of a tool; messages that were said to the run and heard here; changes of the session''s state before it began; a hook. Of a task: a step that it takes, or a sleep.';
comment on column pgrun.steps.name is 'The provider''s name of the model, or the name of the tool, hook or step, with # and a number from the second of that name on; steer for messages, session_state for its state.';
comment on column pgrun.steps.attempt is 'The attempt that did it.';
comment on column pgrun.steps.data is 'What came of it: text, calls, items, usage, response_id of a model''s answer; call_id, arguments, result or error of a tool; a list of texts; a list of changes; the input or content that a hook left; what a step returned; until when a run sleeps.';
comment on column pgrun.steps.duration is 'Seconds it took.';
comment on column pgrun.steps.finished_at is 'It was recorded.';

create table pgrun.attempts (
    run_id      uuid not null references pgrun.jobs on delete cascade,
    fence       bigint not null,
    attempt     smallint not null,
    worker_id   uuid,
    started_at  timestamptz,
    finished_at timestamptz not null default now(),
    duration    float8,
    outcome     text not null check (outcome in ('failed', 'timed_out', 'lost')),
    error_type  text,
    message     text,
    traceback   text,
    retry_delay float8,
    primary key (run_id, fence)
);
comment on table  pgrun.attempts is 'What went wrong: one row for each attempt that failed, took too long, or was lost with its worker. Written in the transaction that decides what follows; a run that succeeds at once has none.';
comment on column pgrun.attempts.run_id is 'Whose attempt it was.';
comment on column pgrun.attempts.fence is 'The claim with which it began; it rises over all attempts, also those after a retry by a person.';
comment on column pgrun.attempts.attempt is 'Its number, as in jobs.attempt.';
comment on column pgrun.attempts.worker_id is 'The worker that made it.';
comment on column pgrun.attempts.started_at is 'It was claimed.';
comment on column pgrun.attempts.finished_at is 'Its failure was written; for one that was lost, its loss was found out.';
comment on column pgrun.attempts.duration is 'Seconds between the two.';
comment on column pgrun.attempts.outcome is 'failed: an error; timed_out: it took longer than its task allows; lost: its worker died.';
comment on column pgrun.attempts.error_type is 'Name of the error, for example ValueError.';
comment on column pgrun.attempts.message is 'What it said.';
comment on column pgrun.attempts.traceback is 'Where it was raised, the last lines of it. Null where nobody needs to know: an error with which a task or model ends its run on purpose.';
comment on column pgrun.attempts.retry_delay is 'Seconds until the next attempt was due. Null: none followed by itself.';

create table pgrun.left_calls (
    run_id      uuid not null references pgrun.jobs on delete cascade,
    response_id text not null,
    left_at     timestamptz not null default now(),
    due_at      timestamptz not null default now(),
    primary key (run_id, response_id)
);
comment on table  pgrun.left_calls is 'Answers that a provider still works on although their run has ended, so that they are paid for and nobody wants them. Whoever sees one, the caller of a cancel or any worker, has the provider stop it, and deletes the row.';
comment on column pgrun.left_calls.run_id is 'The run that has ended.';
comment on column pgrun.left_calls.response_id is 'The provider''s id of the answer.';
comment on column pgrun.left_calls.left_at is 'The run ended.';
comment on column pgrun.left_calls.due_at is 'Somebody is at it until then, or has failed; then another may try. After a day nobody does any more.';

create table pgrun.events (
    run_id     uuid not null references pgrun.jobs on delete cascade,
    seq        bigint not null check (seq > 0),
    kind       text not null check (kind <> ''),
    data       jsonb not null default '{}',
    attempt    smallint not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (run_id, seq)
);
comment on table  pgrun.events is 'The streams of runs that somebody reads, append only: what happened to a run, and what its model said piece by piece. select pgrun.watch(run_id) begins one.';
comment on column pgrun.events.run_id is 'Whose event it is.';
comment on column pgrun.events.seq is 'Its place in the stream of the run: 1, 2, 3 … without a gap, over all attempts.';
comment on column pgrun.events.kind is 'text, thought, tool_call_announced, tool_call_started, tool_call_completed, model_call_completed, progress: told by the worker. started, retried, released, parked, paused, resumed, completed, error, cancelled: what became of the run, told in the transaction that did it.';
comment on column pgrun.events.data is 'What belongs to it; sql/README.md lists it by kind.';
comment on column pgrun.events.attempt is 'The attempt it belongs to.';
comment on column pgrun.events.created_at is 'When it was written; in a stream that began later than its run, when it happened.';

create table pgrun.agents (
    name          text primary key,
    definition    jsonb,
    output_schema jsonb,
    max_attempts  smallint not null default 5,
    declared_at   timestamptz not null default now()
);
comment on table  pgrun.agents is 'The latest definition of every agent that a service or worker has declared, so that SQL can submit by name alone.';
comment on column pgrun.agents.name is 'Name of the agent.';
comment on column pgrun.agents.definition is 'As in jobs.definition. Null: the agent needs a worker that imported its code.';
comment on column pgrun.agents.output_schema is 'JSON Schema of its output, unless a run brings its own.';
comment on column pgrun.agents.max_attempts is 'Attempts its runs are given.';
comment on column pgrun.agents.declared_at is 'When this definition was first seen.';

create table pgrun.sessions (
    session_id    text primary key,
    session_table text,
    last_seq      bigint not null default 0,
    state         jsonb not null default '{}' check (jsonb_typeof(state) = 'object'),
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now()
);
comment on table  pgrun.sessions is 'One row per conversation. Its row lock orders concurrent submissions into the session.';
comment on column pgrun.sessions.session_id is 'Id of the session, unique in this schema.';
comment on column pgrun.sessions.session_table is 'The session_table of the PostgresDb that started it, whose view of that name shows it; null: none was given.';
comment on column pgrun.sessions.last_seq is 'session_seq of the run submitted last.';
comment on column pgrun.sessions.state is 'What tools want to find again in later runs; agents call it session_state.';
comment on column pgrun.sessions.created_at is 'First run submitted, or state set.';
comment on column pgrun.sessions.updated_at is 'Latest run submitted.';

create table pgrun.schedules (
    schedule    text primary key check (schedule <> ''),
    name        text not null check (name <> ''),
    input       jsonb not null default '{}',
    queue       text not null default 'default' check (queue <> ''),
    cron        text,
    every       interval check (every >= interval '0.1 s' and extract(year from every) = 0 and extract(month from every) = 0),
    at          timestamptz check (at >= '1970-01-01 00:00:00Z' and at < '9999-01-01 00:00:00Z'),
    timezone    text not null default 'UTC',
    missed      text not null default 'once' check (missed in ('skip', 'once', 'all')),
    options     jsonb not null default '{}' check (jsonb_typeof(options) = 'object'),
    declared    jsonb,
    declared_at timestamptz,
    created_at  timestamptz not null default now(),
    changed_at  timestamptz not null default now(),
    paused_at   timestamptz,
    next_at     timestamptz,
    last_at     timestamptz,
    last_run_id uuid,
    ended_at    timestamptz,
    error       text,
    check (num_nonnulls(cron, every, at) = 1)
);
comment on table  pgrun.schedules is 'What is submitted again and again, or once at a moment: each tick of a schedule is one run. Rows may be inserted, changed and deleted by hand; a worker computes the next tick.';
comment on column pgrun.schedules.schedule is 'Name of the schedule; its runs carry it and their tick in metadata.';
comment on column pgrun.schedules.name is 'The agent or task that its runs execute.';
comment on column pgrun.schedules.input is 'The input of its runs.';
comment on column pgrun.schedules.queue is 'The queue of its runs.';
comment on column pgrun.schedules.cron is 'Its ticks: minute, hour, day of month, month, day of week, as Debian''s cron reads them; with six fields the first is the second.';
comment on column pgrun.schedules.every is 'Its ticks: the multiples of this duration since 1970 in UTC; no months and years, which have no length.';
comment on column pgrun.schedules.at is 'Its only tick.';
comment on column pgrun.schedules.timezone is 'Where the clock hangs that cron means: a name of the IANA database, such as Europe/Berlin.';
comment on column pgrun.schedules.missed is 'What becomes of ticks that nobody could fire in time: skip = nothing; once = the last of them is fired for all; all = each is, the last hundred at most.';
comment on column pgrun.schedules.options is 'What else its runs are told: session_id, priority, max_attempts, multitask, metadata, context, as in jobs.';
comment on column pgrun.schedules.declared is 'What code has declared last; a change made by hand stays until that changes. Null: no code has.';
comment on column pgrun.schedules.declared_at is 'A worker that declares it in its code has started. Null: none does; older than all workers: the code has forgotten it.';
comment on column pgrun.schedules.created_at is 'Added.';
comment on column pgrun.schedules.changed_at is 'Its ticks were changed, or it was resumed; those after this moment count.';
comment on column pgrun.schedules.paused_at is 'It fires nothing since then. Null: not paused.';
comment on column pgrun.schedules.next_at is 'The next tick. Null: a worker has yet to compute it, or there is none.';
comment on column pgrun.schedules.last_at is 'The tick that was fired last.';
comment on column pgrun.schedules.last_run_id is 'Its run.';
comment on column pgrun.schedules.ended_at is 'There is no tick any more since then.';
comment on column pgrun.schedules.error is 'Why it does not fire: its expression is wrong, or its run cannot be submitted. Null: nothing is wrong. Any change of the row lets a worker try again.';

-- Which tick is the next, and what a worker has to compute: due ones and those without a next tick.
create index schedules_next on pgrun.schedules (next_at) where paused_at is null and ended_at is null and error is null;

create table pgrun.queues (
    queue           text primary key check (queue <> ''),
    paused_at       timestamptz,
    resume_at       timestamptz,
    created_at      timestamptz not null default now(),
    concurrency     int check (concurrency > 0),
    key_concurrency int check (key_concurrency > 0),
    rate            float8 check (rate > 0 and rate < 'infinity'),
    per             interval not null default '1 second' check (per > '0'),
    burst           float8 check (burst >= 1 and burst < 'infinity'),
    limited         boolean not null generated always as (
                        concurrency is not null or key_concurrency is not null or rate is not null) stored
);
comment on table  pgrun.queues is 'The queues that exist: declared by code, by a worker that serves them, or by an insert here.';
comment on column pgrun.queues.queue is 'Name of the queue.';
comment on column pgrun.queues.paused_at is 'Workers claim nothing from it since then. Null: not paused.';
comment on column pgrun.queues.resume_at is 'A pause ends by itself at this moment. Null: only by hand.';
comment on column pgrun.queues.created_at is 'First declared.';
comment on column pgrun.queues.concurrency is 'At most so many of its runs run at once, on all workers together. Null: no limit.';
comment on column pgrun.queues.key_concurrency is 'At most so many runs of one concurrency_key run at once, on all workers together. Null: no limit.';
comment on column pgrun.queues.rate is 'So many runs start per `per` in the long run, the weights of runs added up. Null: no limit.';
comment on column pgrun.queues.per is 'The time that rate is about.';
comment on column pgrun.queues.burst is 'So many may start at one moment, after a rest; then rate says when the next may. Null: as many as rate says, at least 1.';
comment on column pgrun.queues.limited is 'It has a limit.';
insert into pgrun.queues (queue) values ('default');
-- Claim: is there anything beside the usual? Empty where nobody limits or pauses for a time.
create index queues_special on pgrun.queues (queue) where limited or resume_at is not null;

create table pgrun.meters (
    queue    text primary key references pgrun.queues on delete cascade,
    last_key text not null default '',
    level    smallint,
    tokens   float8,
    read_at  timestamptz not null default now()
) with (fillfactor = 50);
comment on table  pgrun.meters is 'What has to be remembered from one claim to the next of queues with a rate, or whose runs take turns. How many run is counted in jobs.';
comment on column pgrun.meters.queue is 'Name of the queue.';
comment on column pgrun.meters.last_key is 'The concurrency_key that had its turn last; empty: runs without one, or none yet.';
comment on column pgrun.meters.level is 'The priority of which the last claim left runs. Null: it left none that is due.';
comment on column pgrun.meters.tokens is 'The weight that may start at once, at read_at; it grows with the rate up to burst. Negative after a run that is heavier than burst. Null: burst.';
comment on column pgrun.meters.read_at is 'The moment that tokens is about.';

create table pgrun.workers (
    worker_id     uuid primary key,
    mode          text not null check (mode in ('daemon', 'embedded')),
    host          text not null,
    pid           int not null,
    version       text not null,
    queues        text[] not null,
    names         text[] not null,
    concurrency   int not null,
    started_at    timestamptz not null default now(),
    heartbeat_at  timestamptz not null default now(),
    lease_until   timestamptz not null,
    lease         interval not null,
    draining      boolean not null default false,
    awake_until   timestamptz,
    blocked_since timestamptz,
    stopped_at    timestamptz,
    stop_reason   text
);
comment on table  pgrun.workers is 'Every worker process, alive or recently gone. A worker holds its runs as long as its lease lasts.';
comment on column pgrun.workers.worker_id is 'New at every start.';
comment on column pgrun.workers.mode is 'daemon: a process of its own. embedded: inside a process that submits or awaits runs.';
comment on column pgrun.workers.host is 'Host name.';
comment on column pgrun.workers.pid is 'Process id on that host.';
comment on column pgrun.workers.version is 'Version of the library it runs.';
comment on column pgrun.workers.queues is 'The queues it claims from.';
comment on column pgrun.workers.names is 'Tasks and agents with tools that it has imported; it can also execute every agent whose definition travels with the run.';
comment on column pgrun.workers.concurrency is 'How many runs it executes at once at most.';
comment on column pgrun.workers.started_at is 'Registered.';
comment on column pgrun.workers.heartbeat_at is 'Last sign of life.';
comment on column pgrun.workers.lease_until is 'Its runs are its own until then; every heartbeat moves it.';
comment on column pgrun.workers.lease is 'How far a heartbeat moves the lease.';
comment on column pgrun.workers.draining is 'It claims nothing more and finishes what it holds.';
comment on column pgrun.workers.awake_until is 'Until then it looks for runs by itself every few milliseconds, because there are so many; nobody needs to wake it.';
comment on column pgrun.workers.blocked_since is 'Its event loop has not run since then: some code blocks it. The heartbeat comes from a thread of its own.';
comment on column pgrun.workers.stopped_at is 'It has stopped, or was found dead; it can never come back under this id.';
comment on column pgrun.workers.stop_reason is 'stopped, or dead.';
