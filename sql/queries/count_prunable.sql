-- How many runs pruning would delete: ended more than :older_than seconds ago, and of one :status, one :queue and one :name unless
-- these are empty. Reads all of them, which takes a while where there are millions; without filters the index jobs_finished is enough.
select count(*) as prunable from pgrun.jobs
 where finished_at <= now() - make_interval(secs => :'older_than'::float8)
   and (:'status' = '' or status = :'status')
   and (:'queue' = '' or queue = :'queue')
   and (:'name' = '' or name = :'name');
