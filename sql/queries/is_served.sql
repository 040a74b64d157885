-- Whether a live daemon serves this queue: then a process in mode auto does not work itself.
select exists (select from pgrun.workers
                where mode = 'daemon' and stopped_at is null and lease_until > now() and not draining
                  and :'queue' = any (queues)) as served;
