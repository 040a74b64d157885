-- Ends a pause and wakes the workers of the queue.
select pgrun.resume_queue(:'queue');
