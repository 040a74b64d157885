-- What was said in a session before a run: input and output of its last :runs completed runs, the latest first.
select j.input, j.output from pgrun.jobs j
 where j.session_id = :'session_id' and j.status = 'completed' and j.kind = 'agent'
   and j.session_seq < (select r.session_seq from pgrun.jobs r where r.run_id = :'run_id'::uuid)
 order by j.session_seq desc limit :'runs'::int;
