-- A schedule fires nothing until it is resumed. Raises PGR02 if there is none.
select pgrun.pause_schedule(:'schedule');
