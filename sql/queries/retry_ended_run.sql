-- Makes a failed or cancelled run due again with all its attempts, on a person's word. Returns its status.
select pgrun.retry(:'run_id'::uuid) as status;
