-- The schedules whose tick has come, and those whose next tick nobody has computed yet, :most at most, by index schedules_next; with the
-- database's clock, and in how many seconds (null: never, as things are) the next tick of all comes that has not come yet.
--
-- Returns one row for each, or one with schedule null when there is none.
select w.*, now() as now,
       (select extract(epoch from n.next_at - now())::float8 from pgrun.schedules n
         where n.paused_at is null and n.ended_at is null and n.error is null and n.next_at > now() order by n.next_at limit 1) as next_in
  from (values (1)) as one
  left join lateral (
        select s.schedule, s.cron, s.every, s.at, s.timezone, s.missed, s.changed_at, s.next_at
          from pgrun.schedules s
         where s.paused_at is null and s.ended_at is null and s.error is null and (s.next_at is null or s.next_at <= now())
         order by s.next_at nulls first
         limit :'most'::int) w on true;
