-- For the rest of this connection: each statement is planned once, which for many takes longer than executing them. A plan that was
-- made while the tables were empty must do when they are full, so it is told to use the indexes.
select set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false), set_config('jit', 'off', false);
