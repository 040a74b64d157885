-- An answer that nobody wanted any more has been stopped at its provider, or was not there any more. :used, a JSON object of numbers,
-- is what it has used until then; that is added to the metrics of its run, once, for who repeats this finds the row deleted.
--
-- A run that a person has retried meanwhile may be running again: its worker counts from what the row said when it was claimed, and
-- would write over the sum. So the row stays then, and whoever comes to it in a minute tries again. Locks the run first, as everywhere.
with job as materialized (
    select j.run_id, j.status from pgrun.jobs j where j.run_id = :'run_id'::uuid for no key update),
forgotten as (
    delete from pgrun.left_calls l
     where l.run_id = :'run_id'::uuid and l.response_id = :'response_id'
       and (:'used'::jsonb = '{}' or exists (select from job where status <> 'running'))
    returning l.run_id)
update pgrun.jobs j
   set metrics = j.metrics || (select jsonb_object_agg(u.key, coalesce((j.metrics ->> u.key)::numeric, 0) + u.value::numeric)
                                 from jsonb_each_text(:'used'::jsonb) u)
  from forgotten f
 where j.run_id = f.run_id and :'used'::jsonb <> '{}';
