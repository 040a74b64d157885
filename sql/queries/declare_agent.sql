-- Records the latest definition of an agent and its queue. When it is new or has changed, runs of that name which were
-- submitted before anyone knew it (so they count as tasks) get it too and are woken. Runs of an agent with tools have no
-- definition either, but they count as an agent's: they must not get one that knows nothing of tools. Returns whether
-- anything changed.
with served as (
    insert into pgrun.queues (queue) values (:'queue') on conflict do nothing),
declared as (
    insert into pgrun.agents as a (name, definition, output_schema, max_attempts)
    values (:'name', nullif(:'definition', '')::jsonb, nullif(:'output_schema', '')::jsonb, :'max_attempts'::smallint)
    on conflict (name) do update
        set definition = excluded.definition, output_schema = excluded.output_schema, max_attempts = excluded.max_attempts,
            declared_at = now()
      where (a.definition, a.output_schema, a.max_attempts) is distinct from (excluded.definition, excluded.output_schema, excluded.max_attempts)
    returning *),
adopted as (
    update pgrun.jobs j
       set kind = 'agent', definition = d.definition, output_schema = coalesce(j.output_schema, d.output_schema), due_at = least(j.due_at, now())
      from declared d
     where j.name = d.name and j.status = 'pending' and j.definition is null and j.kind = 'task'
    returning j.queue),
woken as (
    select count(pg_notify('pgrun_wake', queue)) from (select distinct queue from adopted) q)
select exists (select from declared) as changed, (select count from woken) as woken;
