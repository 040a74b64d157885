-- The state of a session; no row if there is no such session.
select state from pgrun.sessions where session_id = :'session_id';
