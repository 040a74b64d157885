-- What waits, runs and has ended, one row per queue.
select * from pgrun.queue_stats order by queue;
