-- Sets limits of a queue; one that does not exist is declared. :limits is a JSON object with some of concurrency, key_concurrency,
-- rate, per (seconds) and burst; null takes a limit away, what is left out stays as it is. A trigger tells workers.
insert into pgrun.queues as q (queue, concurrency, key_concurrency, rate, per, burst)
select :'queue', (l ->> 'concurrency')::int, (l ->> 'key_concurrency')::int, (l ->> 'rate')::float8,
       coalesce(make_interval(secs => (l ->> 'per')::float8), '1 second'), (l ->> 'burst')::float8
  from (select :'limits'::jsonb) as given (l)
on conflict (queue) do update
   set (concurrency, key_concurrency, rate, per, burst) = (
        select case when l ? 'concurrency' then excluded.concurrency else q.concurrency end,
               case when l ? 'key_concurrency' then excluded.key_concurrency else q.key_concurrency end,
               case when l ? 'rate' then excluded.rate else q.rate end,
               case when l ? 'per' then excluded.per else q.per end,
               case when l ? 'burst' then excluded.burst else q.burst end
          from (select :'limits'::jsonb) as given (l));
