-- Puts a run aside whose attempt can do nothing before the runs that it has started have ended: pending, held, and without the
-- attempt that it had begun. Fenced like finish; a requested cancel is carried out. The function says in which order it locks and
-- looks. :metrics, a JSON object or empty, is what the run has used until now; empty leaves the row's own.
-- Returns whether the run was still held.
select pgrun._park(:'run_id'::uuid, :'fence'::bigint, nullif(:'metrics', '')::jsonb) as held;
