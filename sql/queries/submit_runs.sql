-- Submits runs that are more than plain calls: with keys, tags, limits of time, at a moment, or inside someone's own transaction. They
-- differ in id, key and input only; :common, one JSON object, is what is the same (columns of jobs; delay, expires and deadline in
-- seconds; on_duplicate, max_delay, key_period; wakes: workers are told even if they are awake, for a transaction that commits later).
-- :inputs is a JSON array in the order of :run_ids, and :keys as long, or empty. See pgrun._submit for what happens to a key
-- that is held. The run_ids are made by the client, so a repeat after a lost connection inserts nothing twice.
--
-- Returns in the order of :run_ids which run each of them is now, whether it was inserted by this statement, and the present moment.
select s.submitted::text, s.is_new, now() as submitted_at
  from pgrun._submit(:'common'::jsonb, :'run_ids'::uuid[], :'keys'::text[], :'inputs'::jsonb) s
 order by s.place;
