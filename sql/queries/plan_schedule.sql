-- Says when a schedule comes round next (empty :next_at: never again), or what is wrong with it, unless somebody has changed it since
-- (:changed_at) or another worker was faster (:expected, its next tick as it was; empty: none). Returns whether that was written.
update pgrun.schedules s
   set next_at = nullif(:'next_at', '')::timestamptz, error = nullif(:'error', ''),
       ended_at = case when :'next_at' = '' and :'error' = '' then now() end
 where s.schedule = :'schedule' and s.changed_at = :'changed_at'::timestamptz
   and s.next_at is not distinct from nullif(:'expected', '')::timestamptz
returning true as written;
