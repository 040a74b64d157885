-- The schedules whose next tick nobody has computed yet, and those whose tick has come, :most of each at most; with the database's clock,
-- and in how many seconds (null: never, as things are) the next tick of all comes that has not come yet. Each part reads index
-- schedules_next in one place, so that those that wait cost nothing.
--
-- Returns one row for each, or one with schedule null when there is none.
with looked_at as (
    (select * from pgrun.schedules s
      where s.paused_at is null and s.ended_at is null and s.error is null and s.next_at is null
      limit :'most'::int)
    union all
    (select * from pgrun.schedules s
      where s.paused_at is null and s.ended_at is null and s.error is null and s.next_at <= now()
      order by s.next_at limit :'most'::int))
select s.schedule, s.cron, s.every, s.at, s.timezone, s.missed, s.changed_at, s.next_at, now() as now,
       (select extract(epoch from n.next_at - now())::float8 from pgrun.schedules n
         where n.paused_at is null and n.ended_at is null and n.error is null and n.next_at > now() order by n.next_at limit 1) as next_in
  from (values (1)) as one left join looked_at s on true;
