-- What a task that asks for its context is told of its run beside its input: the metadata, and one row for each step that earlier
-- attempts have recorded; a single row with step null if there is none. remaining is in how many seconds a sleep ends.
select j.metadata, s.step, s.kind, s.name, s.data,
       case s.kind when 'sleep' then extract(epoch from (s.data ->> 'until')::timestamptz - now())::float8 end as remaining
  from pgrun.jobs j
  left join pgrun.steps s on s.run_id = j.run_id
 where j.run_id = :'run_id'::uuid
 order by s.step;
