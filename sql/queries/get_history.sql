-- What was said in a session before a run: input, output and steering of its last :runs runs that count, the latest first. Those
-- count that completed, and those that a later run interrupted, which have no output; not what was rolled back. By index
-- jobs_history. :with_steps: what they did, too, as a list of kind and data in the order of their journals.
select j.input, j.output, j.status = 'completed' as completed, j.steering, j.metrics -> 'last_answer' as last_answer,
       case when :'with_steps'::boolean then (
            select jsonb_agg(jsonb_build_array(s.kind, s.data) order by s.step) from pgrun.steps s where s.run_id = j.run_id) end as steps
  from pgrun.jobs j
 where j.session_id = :'session_id' and j.kind = 'agent' and (j.status = 'completed' or j.superseded = 'interrupt')
   and j.superseded is distinct from 'rollback'
   and j.session_seq < (select r.session_seq from pgrun.jobs r where r.run_id = :'run_id'::uuid)
 order by j.session_seq desc limit :'runs'::int;
