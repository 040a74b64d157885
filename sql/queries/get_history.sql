-- What was said in a session before a run: input and output of its last :runs runs that count, the latest first. Those count that
-- completed, and those that a later run interrupted, which have no output; not what was rolled back. By index jobs_history.
select j.input, j.output, j.status = 'completed' as completed from pgrun.jobs j
 where j.session_id = :'session_id' and j.kind = 'agent' and (j.status = 'completed' or j.superseded = 'interrupt')
   and j.superseded is distinct from 'rollback'
   and j.session_seq < (select r.session_seq from pgrun.jobs r where r.run_id = :'run_id'::uuid)
 order by j.session_seq desc limit :'runs'::int;
