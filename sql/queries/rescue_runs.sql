-- Takes runs away from workers whose lease has run out. The attempt stays used, because the run may be what killed the
-- worker: with attempts left it is due at once, without it ends in error, unless it died in a call whose repeat would do harm
-- (begin_step.sql): it is due then all the same, to ask a person. A requested cancel is carried out.
--
-- A worker is dead when its lease has run out and the database has been up for longer than a lease since: after a restart
-- everyone gets the time to report back. Dead is final (stopped_at): its heartbeats and claims are refused from then on.
-- Runs whose worker is stopped or unknown are rescued too; that covers a claim that committed while its worker was being
-- declared dead. Rows another session is writing are skipped, so this never waits and never deadlocks; the next round finds them.
-- At most 1000 runs in one round. They are found first and locked then, and the fence tells whether a row is still what was
-- found: one that was rescued by somebody else in between, and claimed by a live worker, is not taken away again.
-- Returns the runs rescued; also one row with run_id null that says in how many seconds the next lease runs out (null: no
-- other worker holds anything; 0 or less: there may be more to rescue), which is when it is worth looking again.
with dead as (
    update pgrun.workers w
       set stopped_at = now(), stop_reason = 'dead'
     where w.worker_id in (
            select worker_id from pgrun.workers
             where stopped_at is null and lease_until < now() and worker_id <> :'worker_id'::uuid
               and pg_postmaster_start_time() + lease < now()
             order by worker_id for update skip locked)
    returning w.worker_id),
found as materialized (
    select j.run_id, j.fence
      from pgrun.jobs j
      left join pgrun.workers w on w.worker_id = j.worker_id
     where j.status = 'running'
       and (w.worker_id is null or w.stopped_at is not null or w.worker_id in (select worker_id from dead))
     limit 1000),
orphans as materialized (
    select j.run_id,
           case when j.cancel_requested_at is not null then 'cancelled'
                when j.attempt >= j.max_attempts and coalesce(j.begun, '{}') = '{}' then 'error'
                else 'pending' end as status
      from found f
      join pgrun.jobs j on j.run_id = f.run_id and j.fence = f.fence
     where j.status = 'running'
     order by j.run_id
       for update of j skip locked),
rescued as (
    update pgrun.jobs j
       set status = o.status,
           finished_at = case o.status when 'pending' then null else now() end,
           due_at = now(),
           error = jsonb_build_object('type', 'LeaseLost', 'attempt', j.attempt, 'worker_id', j.worker_id,
                                      'message', format('worker %s died during attempt %s', j.worker_id, j.attempt))
      from orphans o
     where j.run_id = o.run_id
    returning j.run_id, j.name, j.queue, j.status, j.attempt),
woken as (
    select count(pg_notify('pgrun_wake', queue)) from (select distinct queue from rescued where status = 'pending') q),
told as (
    select count(pg_notify('pgrun_done', run_id::text)) from rescued where status <> 'pending')
select r.run_id, r.name, r.status, r.attempt, null::float8 as next_look
  from rescued r, woken, told
union all
select null, null, null, null,
       least(extract(epoch from min(greatest(w.lease_until, pg_postmaster_start_time() + w.lease)) - now())::float8,
             case when (select count(*) from found) = 1000 then 0 end)
  from pgrun.workers w
 where w.stopped_at is null and w.worker_id <> :'worker_id'::uuid
   and exists (select from pgrun.jobs j where j.worker_id = w.worker_id and j.status = 'running');
