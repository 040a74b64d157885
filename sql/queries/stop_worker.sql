-- The worker is leaving by itself: gives back everything it still holds without using up an attempt, and wakes the others.
-- Works from what the database knows, so it also covers a claim whose answer never arrived. Repeating it changes nothing.
-- Returns the runs that were given back.
with stopped as (
    update pgrun.workers set stopped_at = now(), awake_until = null, stop_reason = 'stopped'
     where worker_id = :'worker_id'::uuid and stopped_at is null),
given_back as (
    update pgrun.jobs j
       set status = case when j.cancel_requested_at is null then 'pending' else 'cancelled' end,
           finished_at = case when j.cancel_requested_at is null then null else now() end,
           attempt = greatest(j.attempt - 1, 0), due_at = now(), call = j.call - 'queued'
     where j.worker_id = :'worker_id'::uuid and j.status = 'running'
    returning j.run_id, j.queue, j.status),
woken as (
    select count(pg_notify('pgrun_wake', queue)) from (select distinct queue from given_back where status = 'pending') q),
told as (
    select count(pg_notify('pgrun_done', run_id::text)) from given_back where status = 'cancelled')
select g.run_id from given_back g, woken, told;
