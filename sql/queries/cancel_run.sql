-- Cancels a run, whoever works on it. Returns cancelled, cancelling (its worker has been told), or the status it had ended in.
select pgrun.cancel(:'run_id'::uuid) as state;
