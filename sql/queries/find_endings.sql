-- Which of these runs stand as the same fence wrote them: for a finish that was repeated, and changed nothing the second time.
-- :endings as in finish_runs.sql.
with given as materialized (
    select :'endings'::jsonb as endings)
select j.run_id::text
  from pgrun.jobs j
 where j.run_id = any (array(select jsonb_object_keys(endings)::uuid from given))
   and j.fence = ((select endings from given) -> j.run_id::text ->> 'fence')::bigint
   and j.status = (select endings from given) -> j.run_id::text ->> 'status';
