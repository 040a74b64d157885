-- Deletes at most :batch runs that ended more than :older_than seconds ago, the oldest first; only those of one :status, one
-- :queue and one :name unless these are empty. Called again and again, each time with the `reached` of the call before as :after (empty at
-- first), until `reached` is null: nothing that old is left. Short transactions, so that claims and vacuum go on in between.
-- A session keeps its row and its numbering.
--
-- By index jobs_finished. One call looks at no more than ten times :batch runs, whatever the filters leave of them, so it takes
-- milliseconds also where ten million completed runs lie before the first failed one; runs that ended in the same instant are
-- looked at together. :after is what keeps later calls from wading through what earlier ones have deleted and vacuum has not
-- yet cleared away. A full batch is gone on with at its last instant, because more may have ended in it.
--
-- Rows that somebody else is deleting, retrying or reading for update are skipped: this waits for nobody, and two who prune at
-- once share the work. Ended runs hold up no session, so there is no other lock.
with bounds as materialized (
    select coalesce(nullif(:'after', '')::timestamptz, '-infinity') as since,
           now() - make_interval(secs => :'older_than'::float8) as cutoff),
stretch as materialized (
    select b.since, b.cutoff,
           coalesce((select j.finished_at from pgrun.jobs j
                      where j.finished_at > b.since and j.finished_at <= b.cutoff
                      order by j.finished_at
                     offset 10 * :'batch'::int limit 1), b.cutoff) as until
      from bounds b),
-- Bounds as scalar subqueries: joined, the order of the index would be lost to the planner.
old as materialized (
    select j.run_id
      from pgrun.jobs j
     where j.finished_at > (select since from stretch) and j.finished_at <= (select until from stretch)
       and (:'status' = '' or j.status = :'status')
       and (:'queue' = '' or j.queue = :'queue')
       and (:'name' = '' or j.name = :'name')
     order by j.finished_at
     limit :'batch'::int
       for update skip locked),
-- An array, not a join: of a limit it does not know the planner expects a tenth of the table, and would read all of it.
deleted as (
    delete from pgrun.jobs j where j.run_id = any (array(select run_id from old))
    returning j.finished_at)
select count(d.finished_at) as deleted,
       case when count(d.finished_at) >= :'batch'::int then max(d.finished_at) - interval '1 microsecond'
            when s.until < s.cutoff then s.until end as reached
  from stretch s
  left join deleted d on true
 group by s.until, s.cutoff;
