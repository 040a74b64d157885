-- What a process declares in its code, written when one of its workers starts. The row takes it over when it is new or has changed
-- since it was declared last, so that what a person has changed meanwhile stays, a pause in any case. Empty :cron, :every (seconds) and :at:
-- another of them says when.
with known as (
    insert into pgrun.queues (queue) values (:'queue') on conflict do nothing),
written as (
    insert into pgrun.schedules as s (schedule, name, input, queue, cron, every, at, timezone, missed, options, declared, declared_at)
    select :'schedule', :'name', :'input'::jsonb, :'queue', nullif(:'cron', ''), make_interval(secs => nullif(:'every', '')::float8),
           nullif(:'at', '')::timestamptz, :'timezone', :'missed', :'options'::jsonb,
           jsonb_build_object('name', :'name'::text, 'input', :'input'::jsonb, 'queue', :'queue'::text, 'cron', :'cron'::text,
                              'every', :'every'::text, 'at', :'at'::text, 'timezone', :'timezone'::text, 'missed', :'missed'::text,
                              'options', :'options'::jsonb),
           now()
    on conflict (schedule) do update
        set name = excluded.name, input = excluded.input, queue = excluded.queue, cron = excluded.cron, every = excluded.every,
            at = excluded.at, timezone = excluded.timezone, missed = excluded.missed, options = excluded.options,
            declared = excluded.declared, declared_at = now()
      where s.declared is distinct from excluded.declared
    returning true),
seen as (
    update pgrun.schedules s set declared_at = now() where s.schedule = :'schedule' and not exists (select from written) returning true)
select exists (select from written) as changed, exists (select from seen) as seen;
