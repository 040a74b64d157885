-- Lets held runs go on for which nothing is open any more: neither in their session nor among the runs that they have started. Rarely
-- finds any: only when whoever ended the run before could not get a lock within 100 ms (see _open_session and _go_on). Looks at
-- each session once.
select pgrun._open_session(s.session_id)
  from (select distinct j.session_id from pgrun.jobs j
         where j.held = 'session' and j.finished_at is null and j.session_id is not null
           and not exists (select from pgrun.jobs o
                            where o.session_id = j.session_id and o.finished_at is null and (o.held is null or o.held = 'children')
                              and o.multitask is distinct from 'parallel')
         limit 100) s
union all
select null
  from (select j.run_id, pgrun._go_on(j.run_id) as done from pgrun.jobs j
         where j.held = 'children' and j.finished_at is null and j.session_id is not null
           and not exists (select from pgrun.jobs c where c.parent_run_id = j.run_id and c.finished_at is null)
         limit 100) p
 where p.done is not null;
