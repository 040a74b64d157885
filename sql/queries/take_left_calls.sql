-- Answers that providers still work on although their run has ended, to be stopped there: those of one run (:run_id), or with that
-- empty all of these :queues. For a minute nobody else takes them; who has done it deletes the row (forget_left_call.sql), who
-- could not leaves it. :names as in claim_runs.sql: whose models the caller has. Nobody tries for longer than a day.
with due as materialized (
    select l.run_id, l.response_id
      from pgrun.left_calls l
      join pgrun.jobs j on j.run_id = l.run_id
     where l.due_at <= now() and l.left_at > now() - interval '1 day'
       and (nullif(:'run_id', '')::uuid is null or l.run_id = nullif(:'run_id', '')::uuid)
       and (:'run_id' <> '' or j.queue = any (:'queues'::text[]))
       and (j.definition is not null or j.name = any (:'names'::text[]))
     limit 100
       for update of l skip locked),
taken as (
    update pgrun.left_calls l set due_at = now() + interval '1 minute'
      from due d
     where l.run_id = d.run_id and l.response_id = d.response_id
    returning l.run_id, l.response_id)
select t.run_id::text, t.response_id, j.name, j.definition::text
  from taken t
  join pgrun.jobs j on j.run_id = t.run_id;
