-- Adds events to the streams of runs that a worker holds, and tells their readers, with one notification; for at most 200 runs
-- (8000 bytes).
--
-- :events is one JSON object, {run_id: {"fence": …, "seq": …, "events": [[kind, data], …]}}, where seq is the number of the first.
-- A repeat, because the client could not know whether the first call had been committed, changes nothing.
--
-- Fenced: a run that was claimed again since, is no longer running, or is read by nobody, gets nothing. The lock on its row makes
-- everyone wait who ends the run or takes it over: whatever they tell comes after. A row that somebody else has locked, perhaps a
-- person in a long transaction, is skipped, so that the other runs need not wait.
-- Returns the runs that the worker still holds, and whether their events are written.
with given as materialized (
    select :'events'::jsonb as events),
held as materialized (
    select j.run_id, j.attempt
      from pgrun.jobs j
     where j.run_id = any (array(select jsonb_object_keys(events)::uuid from given))
       and j.fence = ((select events from given) -> j.run_id::text ->> 'fence')::bigint
       and coalesce(j.status = 'running' and j.streams, false)
     order by j.run_id
       for no key update skip locked),
added as (
    insert into pgrun.events (run_id, seq, kind, data, attempt)
    select h.run_id, (told.run ->> 'seq')::bigint + e.place - 1, e.event ->> 0, e.event -> 1, h.attempt
      from held h
     cross join lateral (select (select events from given) -> h.run_id::text) as told (run)
     cross join lateral jsonb_array_elements(told.run -> 'events') with ordinality as e (event, place)
    on conflict (run_id, seq) do nothing),
told as (
    select count(pg_notify('pgrun_events', ids))
      from (select string_agg(run_id::text, ',') as ids from held having count(*) > 0) readers)
select j.run_id::text, exists (select from held h where h.run_id = j.run_id) as written
  from pgrun.jobs j
 cross join told
 where j.run_id = any (array(select jsonb_object_keys(events)::uuid from given))
   and j.fence = ((select events from given) -> j.run_id::text ->> 'fence')::bigint
   and coalesce(j.status = 'running' and j.streams, false);
