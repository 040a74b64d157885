"""A task whose runs see how many of their kind run at the same moment: a module, so that worker processes can import it.

Each holds locks in a session of its own, which end with it, also when its process is killed.
"""

import os
import random

import anyio
import psycopg

from pgrun import PostgresDb, RetryPolicy, Task

SEEN = "create table public.seen (key int, of_key int, of_all int)"

_LOOK = """
insert into public.seen
select %(key)s, count(*) filter (where classid = 1), count(*) filter (where classid = 2)
  from pg_locks
 where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
   and (classid = 1 and objid = %(key)s or classid = 2)
"""


def declare(db: PostgresDb) -> Task[[int], None]:
    """For a worker that finds the database in its environment."""

    async def occupy(key: int) -> None:
        conninfo = os.environ["PGRUN_DATABASE_URL"]
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
            await conn.execute("select pg_advisory_lock_shared(1, %s), pg_advisory_lock_shared(2, 0)", [key])
            await conn.execute(_LOOK, {"key": key})
            await anyio.sleep(random.uniform(0.001, 0.02))
            await conn.execute("select pg_advisory_unlock_all()")

    return db.task(name="Occupy", retry=RetryPolicy(max_attempts=1000, base_delay=0.01))(occupy)


declare(PostgresDb("postgresql://localhost/nothing", worker="external"))  # for workers, which bring their own
