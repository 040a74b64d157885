-- The workers that are alive or have left their runs behind, one row each.
select * from pgrun.worker_status where state not in ('stopped', 'dead') order by started_at;
