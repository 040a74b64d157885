-- Deletes the events of at most :batch runs that ended more than :older_than seconds ago, the oldest first, by index jobs_streamed.
-- From then on they are runs that nobody has read: whoever does gets what the row and its steps tell. Rows that somebody
-- else has locked are skipped. Returns of how many runs.
with old as materialized (
    select j.run_id
      from pgrun.jobs j
     where j.streams and j.finished_at <= now() - make_interval(secs => :'older_than'::float8)
     order by j.finished_at
     limit :'batch'::int
       for update skip locked),
deleted as (
    delete from pgrun.events e where e.run_id = any (array(select run_id from old))),
marked as (
    update pgrun.jobs j set streams = false where j.run_id = any (array(select run_id from old))
    returning j.run_id)
select count(*) as pruned from marked;
