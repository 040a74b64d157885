-- Submits a run as a person does: by the name of a declared agent or a task. Empty parameters take their defaults; durations are in
-- seconds. Raises PGR02 if the queue does not exist, PGR03 if the session is busy and :multitask is reject. Returns the run_id: with a
-- :key that of the run which holds it.
select pgrun.submit(:'name', :'input'::jsonb, queue => :'queue', session_id => nullif(:'session_id', ''),
                    priority => :'priority'::int, delay => make_interval(secs => :'delay'::float8),
                    max_attempts => nullif(:'max_attempts', '')::int, metadata => :'metadata'::jsonb,
                    definition => nullif(:'definition', '')::jsonb, output_schema => nullif(:'output_schema', '')::jsonb,
                    run_id => nullif(:'run_id', '')::uuid, multitask => nullif(:'multitask', ''),
                    due_at => nullif(:'due_at', '')::timestamptz, expires => make_interval(secs => nullif(:'expires', '')::float8),
                    deadline => make_interval(secs => nullif(:'deadline', '')::float8),
                    timeout => make_interval(secs => nullif(:'timeout', '')::float8), tags => nullif(:'tags', '{}')::text[],
                    key => nullif(:'key', ''), key_scope => nullif(:'key_scope', ''),
                    key_period => make_interval(secs => nullif(:'key_period', '')::float8),
                    on_duplicate => coalesce(nullif(:'on_duplicate', ''), 'keep'),
                    max_delay => make_interval(secs => nullif(:'max_delay', '')::float8),
                    concurrency_key => nullif(:'concurrency_key', ''), weight => nullif(:'weight', '')::int) as run_id;
