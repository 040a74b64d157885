-- What all waiters of a process need to know, in one statement: for each id the run, if it has ended, and a row with status
-- null, if there is no such run. Runs that are still open are not returned, except those among :or_paused that are paused. Used
-- after a notification, after every (re)connect of the listener, and for polling.
select w.run_id as asked, j.*
  from unnest(:'run_ids'::uuid[]) as w (run_id)
  left join pgrun.jobs j on j.run_id = w.run_id
 where j.run_id is null or j.finished_at is not null or (j.status = 'paused' and j.run_id = any (:'or_paused'::uuid[]));
