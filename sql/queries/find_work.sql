-- For tests: what is left to do for a worker that serves :queues. busy: something is due or in its hands. waiting: runs that wait for
-- their next attempt. ended: those whose last attempt was its, in the order in which they ended.
select exists (select from pgrun.jobs j
                where j.queue = any (:'queues'::text[]) and j.status = 'pending' and j.held is null and j.due_at <= now()
                  and not exists (select from pgrun.queues q
                                   where q.queue = j.queue and q.paused_at is not null and (q.resume_at is null or q.resume_at > now())))
       or exists (select from pgrun.jobs j where j.worker_id = :'worker_id'::uuid and j.status = 'running')
       or exists (select from pgrun.schedules s
                   where s.paused_at is null and s.ended_at is null and s.error is null and (s.next_at is null or s.next_at <= now()))
       as busy,
       array(select j.run_id::text from pgrun.jobs j
              where j.queue = any (:'queues'::text[]) and j.status = 'pending' and j.held is null and j.attempt > 0 and j.due_at > now())
       as waiting,
       array(select j.run_id::text from pgrun.jobs j
              where j.worker_id = :'worker_id'::uuid and j.finished_at is not null order by j.finished_at, j.run_id)
       as ended;
