-- Whether a queue exists.
select exists (select from pgrun.queues where queue = :'queue') as known;
