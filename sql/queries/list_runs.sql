-- Runs, the newest first, as the view shows them. Empty filters mean any. Reads the primary key backwards: ids are time-ordered.
select * from pgrun.runs
 where (:'status' = '' or status = :'status')
   and (:'queue' = '' or queue = :'queue')
   and (:'name' = '' or name = :'name')
   and (:'session_id' = '' or session_id = :'session_id')
 order by run_id desc
 limit :'max_rows'::int;
