-- A paused schedule fires again, from the next tick on. Raises PGR02 if there is none.
select pgrun.resume_schedule(:'schedule');
