-- Notes how far runs have come that a worker holds, and tells those who read along; for at most 200 runs (8000 bytes of ids).
--
-- :progress is one JSON object, {run_id: {"fence": …, "progress": {…}}}. Fenced like finish: what belongs to somebody else, or has
-- ended, is left as it is. A row that somebody has locked, perhaps a person in a long transaction, is skipped, so that the other runs
-- need not wait. Written again after a lost connection it may be told twice, which changes nothing. Returns the runs whose progress
-- is noted.
with given as materialized (
    select :'progress'::jsonb as runs),
held as materialized (
    select j.run_id
      from pgrun.jobs j
     where j.run_id = any (array(select jsonb_object_keys(runs)::uuid from given))
       and j.fence = ((select runs from given) -> j.run_id::text ->> 'fence')::bigint
       and coalesce(j.status = 'running', false)
     order by j.run_id
       for no key update skip locked),
noted as (
    update pgrun.jobs j
       set progress = (select runs from given) -> j.run_id::text -> 'progress' || jsonb_build_object('updated_at', now())
     where j.run_id = any (array(select run_id from held))
    returning j.run_id, j.attempt, j.progress, j.streams),
told as materialized (
    select run_id, pgrun._tell_event(run_id, attempt, 'progress', progress) from noted where streams),
heard as (
    select count(pg_notify('pgrun_events', ids))
      from (select string_agg(run_id::text, ',') as ids from told having count(*) > 0) readers)
select n.run_id::text from noted n, heard;
