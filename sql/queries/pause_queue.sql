-- Workers start nothing more from this queue, for :seconds, or, if that is empty, until it is resumed.
select pgrun.pause_queue(:'queue', now() + make_interval(secs => nullif(:'seconds', '')::float8));
