-- Lets held runs start whose session has nothing open any more. Rarely finds any: only when the worker that ended the run
-- before could not get the session's lock within 100 ms (see _open_session). Looks at each session once.
select pgrun._open_session(s.session_id)
  from (select distinct j.session_id from pgrun.jobs j
         where j.held = 'session' and j.finished_at is null
           and not exists (select from pgrun.jobs o
                            where o.session_id = j.session_id and o.finished_at is null and o.held is null
                              and o.multitask is distinct from 'parallel')
         limit 100) s;
