-- Ends runs whose time is up while nobody executes them, and tells their waiters: those that nobody has started by expires_at are
-- cancelled (RunExpired), and those that have not ended by deadline_at end in error (DeadlineExceeded). A worker ends what it executes
-- by itself; one that dies is rescued, and then comes here. By index jobs_limited, which holds only such runs.
--
-- At most 1000 in one round; rows that somebody else is writing are skipped until the next one. Lock order: as for all that ends
-- runs, the row first; the session gives way. Returns how many were ended, and in how many seconds the next one may be (0: now,
-- null: there is none).
with found as materialized (
    select j.run_id from pgrun.jobs j
     where pgrun._ends_at(j) <= now() and j.status in ('pending', 'paused') and (j.expires_at is not null or j.deadline_at is not null)
     order by pgrun._ends_at(j)
     limit 1000
       for update skip locked),
ended as (
    update pgrun.jobs j
       set (status, error) = (
            select case when has_expired then 'cancelled' else 'error' end,
                   jsonb_build_object('type', case when has_expired then 'RunExpired' else 'DeadlineExceeded' end, 'attempt', j.attempt, 'message',
                       case when has_expired then 'nobody had started it by ' else 'it had not ended by its deadline, ' end
                       || to_char(case when has_expired then j.expires_at else j.deadline_at end at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
                       || coalesce(' (its last error: ' || (j.error ->> 'message') || ')', ''))
              from (select coalesce(pgrun._starts_until(j) <= now(), false) as has_expired) as why),
           finished_at = now(), held = null
     where j.run_id = any (array(select run_id from found))
    returning j.run_id),
told as (
    select count(pg_notify('pgrun_done', ids))
      from (select string_agg(run_id::text, ',') as ids
              from (select run_id, (row_number() over () - 1) / 200 as part from ended) e group by part) parts)
select (select count(*) from ended) as ended,
       case (select count(*) from found) when 1000 then 0
            else (select extract(epoch from min(pgrun._ends_at(j)) - now())::float8 from pgrun.jobs j
                   where pgrun._ends_at(j) > now() and j.status in ('pending', 'paused')
                     and (j.expires_at is not null or j.deadline_at is not null)) end as next_look
  from told;
