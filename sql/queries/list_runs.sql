-- Runs, the newest first, as the view shows them. Empty filters mean any: :tags are texts of which a run has all, :metadata is one JSON
-- object of texts, to which its values are equal. Reads the primary key backwards, since ids are time-ordered: what is rare and long ago
-- takes as long as a look at the whole table. An index would cost every run that has tags three writes of each; whoever
-- looks for them all the time makes one: create index on pgrun.jobs using gin (tags).
select * from pgrun.runs
 where (:'status' = '' or status = :'status')
   and (:'queue' = '' or queue = :'queue')
   and (:'name' = '' or name = :'name')
   and (:'session_id' = '' or session_id = :'session_id')
   and (:'tags' = '{}' or tags @> :'tags'::text[])
   and (:'metadata' = '{}' or not exists (select from jsonb_each_text(:'metadata'::jsonb) m where metadata ->> m.key is distinct from m.value))
 order by run_id desc
 limit :'max_rows'::int;
