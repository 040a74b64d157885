-- Schedules in the order of their names, with how the last run of each stands (null: there is none any more). Empty :schedule means all.
select s.schedule, s.name, s.input, s.queue, s.cron, s.every, s.at, s.timezone, s.missed, s.options, s.next_at, s.last_at,
       s.last_run_id::text, j.status as last_status, s.paused_at, s.ended_at, s.error, s.created_at, s.declared_at
  from pgrun.schedules s
  left join pgrun.jobs j on j.run_id = s.last_run_id
 where :'schedule' in ('', s.schedule)
 order by s.schedule;
