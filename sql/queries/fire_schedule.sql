-- Submits a run for each of :ticks, which may be none, of a schedule whose tick :expected has come, and says which is the next (empty:
-- there is none). All that in one statement and only if the row still waits for that very tick, so of many workers one does it;
-- the database's clock has the last word. The ids of runs follow from schedule and tick, so nothing can submit them twice.
--
-- Lock order: the row of the schedule, then that of a session, then jobs. A row that somebody else has locked is left to them.
-- Raises PGR03 where the session of its runs is busy and they are not to wait. Returns a row with run_ids, or none if the tick
-- was not the caller's.
with mine as materialized (
    select s.schedule from pgrun.schedules s
     where s.schedule = :'schedule' and s.changed_at = :'changed_at'::timestamptz and s.next_at = :'expected'::timestamptz
       and s.next_at <= now() and s.paused_at is null and s.error is null
       for update skip locked),
moved as (
    update pgrun.schedules s
       set next_at = nullif(:'next_at', '')::timestamptz, ended_at = case when :'next_at' = '' then now() end,
           last_at = coalesce((select max(tick) from unnest(:'ticks'::timestamptz[]) tick), s.last_at),
           last_run_id = coalesce((select pgrun._tick_run_id(:'schedule', :'changed_at'::timestamptz, max(tick)) from unnest(:'ticks'::timestamptz[]) tick
                                   having max(tick) is not null), s.last_run_id)
     where s.schedule = any (array(select schedule from mine))
    returning s as row)
select array(select pgrun._fire(moved.row, pgrun._tick_run_id(:'schedule', :'changed_at'::timestamptz, tick), tick)::text
               from unnest(:'ticks'::timestamptz[]) tick order by tick) as run_ids
  from moved;
