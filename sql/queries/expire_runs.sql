-- Ends runs whose time is up while nobody executes them, and tells their waiters: those that nobody has started by expires_at are
-- cancelled (RunExpired), and those that have not ended by deadline_at end in error (DeadlineExceeded). A worker ends what it executes
-- by itself; one that dies is rescued, and then comes here. Whoever was claimed by a worker that did not know its name has not been
-- started. By indexes jobs_expiring and jobs_deadline, which only hold such runs.
--
-- At most 1000 of each kind in one round; rows that somebody else is writing are skipped until the next one. Lock order: as for all
-- that ends runs, the row first; the session gives way. Returns how many were ended, and in how many seconds the next one may be
-- (0: now, null: none).
with expired as materialized (
    select j.run_id from pgrun.jobs j
     where j.status = 'pending' and j.expires_at <= now()
       and (j.started_at is null or j.attempt = 0 and j.error ->> 'type' = 'UnknownName')
     order by j.expires_at
     limit 1000
       for update skip locked),
late as materialized (
    select j.run_id from pgrun.jobs j
     where j.status in ('pending', 'paused') and j.deadline_at <= now()
     order by j.deadline_at
     limit 1000
       for update skip locked),
ended as (
    update pgrun.jobs j
       set (status, error) = (
            select case when is_late then 'error' else 'cancelled' end,
                   jsonb_build_object('type', case when is_late then 'DeadlineExceeded' else 'RunExpired' end, 'attempt', j.attempt, 'message',
                       case when is_late then 'it had not ended by its deadline, ' else 'nobody had started it by ' end
                       || to_char(case when is_late then j.deadline_at else j.expires_at end at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
                       || coalesce('; its last error: ' || (j.error ->> 'message'), ''))
              from (select j.run_id <> all (array(select run_id from expired)) as is_late) as why),
           finished_at = now(), held = null
     where j.run_id = any (array(select run_id from expired union select run_id from late))
    returning j.run_id),
told as (
    select count(pg_notify('pgrun_done', ids))
      from (select string_agg(run_id::text, ',') as ids
              from (select run_id, (row_number() over () - 1) / 200 as part from ended) e group by part) parts)
select (select count(*) from ended) as ended,
       case when 1000 in ((select count(*) from expired), (select count(*) from late)) then 0
            else extract(epoch from least(
                     (select min(expires_at) from pgrun.jobs where status = 'pending' and expires_at > now()),
                     (select min(deadline_at) from pgrun.jobs where status in ('pending', 'paused') and deadline_at > now())) - now())::float8
            end as next_look
  from told;
