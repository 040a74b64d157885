"""Everything that knows Postgres; psycopg is imported nowhere else."""
