-- Inserts one run of a task that belongs to no session, the commonest one: submit_run.sql with half of its parameters, each of which
-- costs a few microseconds.
insert into pgrun.jobs (run_id, kind, name, queue, priority, due_at, max_attempts, input, metadata)
values (:'run_id'::uuid, 'task', :'name', :'queue', :'priority'::smallint, now() + make_interval(secs => :'delay'::float8),
        :'max_attempts'::smallint, :'input'::jsonb, :'metadata'::jsonb)
on conflict (run_id) do nothing;
