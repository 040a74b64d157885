-- The pieces of the answer that a reader who goes on after event :after has seen before: those of the call of the model that was
-- under way there.
select e.data ->> 'text' as text
  from pgrun.events e
 where e.run_id = :'run_id'::uuid and e.kind = 'text' and e.seq <= :'after'::bigint
   and e.seq > coalesce((select max(b.seq) from pgrun.events b
                          where b.run_id = :'run_id'::uuid and b.seq <= :'after'::bigint
                            and b.kind in ('started', 'retried', 'released', 'parked', 'model_call_completed')), 0)
 order by e.seq;
