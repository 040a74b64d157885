-- Workers that stopped, or were found dead, more than a day ago are forgotten; a run whose worker nobody knows is rescued like
-- one whose worker is dead. Skips what another worker is forgetting. Returns how many.
with gone as materialized (
    select worker_id from pgrun.workers where stopped_at < now() - interval '1 day'
     limit 1000
       for update skip locked),
forgotten as (
    delete from pgrun.workers w using gone g where w.worker_id = g.worker_id returning 1)
select count(*) as forgotten from forgotten;
