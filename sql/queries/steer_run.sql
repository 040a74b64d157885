-- Says something to an open run of an agent. The id of the message is made by the client, so a repeat after a lost connection says
-- nothing twice. Returns the status of the run. Raises PGR04 if it has ended.
select pgrun.steer(:'run_id'::uuid, :'message', :'message_id'::uuid) as status;
