-- Pauses a run until people have decided on the calls that it waits for. The attempt is given back, no worker holds it, and the
-- decisions make it due again (pgrun.approve). Unless it :holds_session, the next run of its session may start meanwhile (trigger);
-- a parallel one never holds it.
-- :requirements replaces what is in the row, which nobody changes while the run is running; empty :metrics leaves the row's own.
-- Fenced like finish; a requested cancel is carried out instead. Whoever waits for the run looks at it then, and most wait on.
--
-- Returns the status it has now; no row: the claim was stale. A repeat, because the client could not know whether the first call
-- had been committed, finds its requirements there, whatever people have decided meanwhile (a decision adds members).
with paused as (
    update pgrun.jobs j
       set status = case when j.cancel_requested_at is null then 'paused' else 'cancelled' end,
           held = case when j.cancel_requested_at is null and j.session_id is not null and j.multitask is distinct from 'parallel'
                            and not :'holds_session'::boolean then 'person' end,
           paused_at = now(),
           finished_at = case when j.cancel_requested_at is null then null else now() end,
           attempt = greatest(j.attempt - 1, 0),
           requirements = :'requirements'::jsonb,
           metrics = coalesce(nullif(:'metrics', '')::jsonb, j.metrics),
           tools = nullif(:'tools', '')::jsonb
     where j.run_id = :'run_id'::uuid and j.fence = :'fence'::bigint and j.status = 'running'
    returning j.run_id, j.status),
told as (
    select count(pg_notify('pgrun_done', run_id::text)) from paused)
select p.status from paused p, told
union all
select j.status from pgrun.jobs j
 where j.run_id = :'run_id'::uuid and j.fence >= :'fence'::bigint and j.requirements @> :'requirements'::jsonb
   and not exists (select from paused);
