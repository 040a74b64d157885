-- Makes a worker known, with a lease of :lease seconds, and its queues with it; or records that it now serves other queues or
-- knows other names.
with served as (
    insert into pgrun.queues (queue) select unnest(:'queues'::text[]) on conflict do nothing)
insert into pgrun.workers (worker_id, mode, host, pid, version, queues, names, concurrency, lease, lease_until)
values (:'worker_id'::uuid, :'mode', :'host', :'pid'::int, :'version', :'queues'::text[], :'names'::text[], :'concurrency'::int,
        make_interval(secs => :'lease'::float8), now() + make_interval(secs => :'lease'::float8))
on conflict (worker_id) do update set queues = excluded.queues, names = excluded.names;
