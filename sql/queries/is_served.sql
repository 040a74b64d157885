-- Whether a live daemon serves this queue that has imported whatever this process could execute by :names alone, its tasks and
-- agents with tools: then a process in mode auto does not work itself.
select exists (select from pgrun.workers
                where mode = 'daemon' and stopped_at is null and lease_until > now() and not draining
                  and :'queue' = any (queues) and :'names'::text[] <@ names) as served;
