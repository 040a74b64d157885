-- Removes a schedule; what it has submitted stays. Returns whether there was one.
select pgrun.unschedule(:'schedule') as removed;
