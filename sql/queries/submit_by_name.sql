-- Submits a run as a person does: by the name of a declared agent or a task. Empty parameters take their defaults. Raises PGR02
-- if the queue does not exist, PGR03 if the session is busy and :multitask is reject. Returns the run_id.
select pgrun.submit(:'name', :'input'::jsonb, queue => :'queue', session_id => nullif(:'session_id', ''),
                    priority => :'priority'::int, delay => make_interval(secs => :'delay'::float8),
                    max_attempts => nullif(:'max_attempts', '')::int, metadata => :'metadata'::jsonb,
                    definition => nullif(:'definition', '')::jsonb, output_schema => nullif(:'output_schema', '')::jsonb,
                    run_id => nullif(:'run_id', '')::uuid, multitask => nullif(:'multitask', ''),
                    concurrency_key => nullif(:'concurrency_key', ''), weight => nullif(:'weight', '')::int) as run_id;
