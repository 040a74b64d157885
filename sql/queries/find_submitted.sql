-- For tests: the runs of an agent or a task, whatever became of them, the latest first; :max_rows at most.
select run_id::text, input from pgrun.jobs where name = :'name' order by created_at desc, run_id desc limit :'max_rows'::int;
