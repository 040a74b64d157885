-- Adds a schedule or changes the one of that name, as a person does. Empty :cron, :every (seconds) and :at: another of them says when.
-- Raises PGR02 if something cannot be.
select pgrun.schedule(:'schedule', :'name', :'input'::jsonb, cron => nullif(:'cron', ''),
                      every => make_interval(secs => nullif(:'every', '')::float8), at => nullif(:'at', '')::timestamptz,
                      timezone => :'timezone', missed => :'missed', queue => :'queue', options => :'options'::jsonb);
