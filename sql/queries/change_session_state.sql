-- Changes the state of a session, piece by piece, so that it loses nothing of what runs change at the same time; :changes as in
-- pgrun._change_state. A session that does not exist is begun. Repeating it changes nothing more, unless it appends or adds.
-- Returns the state it has now.
insert into pgrun.sessions as s (session_id, state) values (:'session_id', pgrun._change_state('{}', :'changes'::jsonb))
on conflict (session_id) do update set state = pgrun._change_state(s.state, :'changes'::jsonb)
returning state;
