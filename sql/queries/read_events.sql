-- What all readers of a process have not seen yet, in one statement: of each run at most :page events that come after a number. Pairs
-- of run and number are given as :run_ids and :afters.
--
-- Returns the events, each with its pair and whether the run has ended: if it has, and there are no more, the stream is at its end,
-- because an end is told in the transaction that brings it. A pair without events is returned, with seq null, when the run has
-- ended or does not exist (status null); not while there is just nothing new.
select r.run_id::text, r.after, j.status, e.seq, e.kind, e.data, e.attempt, e.created_at
  from unnest(:'run_ids'::uuid[], :'afters'::bigint[]) as r (run_id, after)
  left join pgrun.jobs j on j.run_id = r.run_id
  left join lateral (
        select n.seq, n.kind, n.data, n.attempt, n.created_at
          from pgrun.events n
         where n.run_id = r.run_id and n.seq > r.after
         order by n.seq
         limit :'page'::int) e on true
 where e.seq is not null or j.run_id is null or j.finished_at is not null
 order by r.run_id, r.after, e.seq;
