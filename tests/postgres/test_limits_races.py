"""Many claim from one queue with limits at the same moment, and end, put off and lose what they get: no row too many runs."""

import random
from threading import Barrier

import pytest
from support.crew import crew
from support.database import Conn
from support.hands import hire
from support.tables import claim_limited, finish, one, perform

from pgrun import PostgresDb

THREADS = 8
MOST, MOST_OF_KEY = 4, 2

RUNNING = """
select coalesce(sum(many), 0)::int as all, coalesce(max(many) filter (where key is not null), 0)::int as of_key
  from (select concurrency_key as key, count(*) as many from pgrun.jobs where status = 'running' group by 1) running
"""

STARTED = """
with started as (
    select row_number() over (order by started_at) as number, extract(epoch from started_at)::float8 as at
      from pgrun.jobs where started_at is not null)
select max(b.number - a.number + 1 - %s * (b.at - a.at)) from started a join started b on b.number >= a.number
"""


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
async def test_at_no_instant_there_run_more_than_may(db: PostgresDb, conn: Conn, dsn: str, rounds: int) -> None:
    conn.execute("update pgrun.queues set concurrency = %s, key_concurrency = %s", [MOST, MOST_OF_KEY])
    conn.execute(
        "insert into pgrun.jobs (name, concurrency_key, max_attempts) "
        "select 'noop', (array['a', 'b', 'c', null])[1 + n %% 4], 10000 from generate_series(1, %s) n",
        [THREADS * rounds],
    )
    workers = [(await hire(db)).worker_id for _ in range(THREADS)]
    together = Barrier(THREADS, timeout=30)

    def work(own: Conn, number: int) -> list[tuple[int, int]]:
        chance, seen = random.Random(number), list[tuple[int, int]]()
        together.wait()
        for _ in range(rounds):
            claimed = claim_limited(own, workers[number], slots=chance.randint(1, 5))
            (row,) = own.execute(RUNNING).fetchall()
            seen.append((row["all"], row["of_key"]))
            for run in claimed:
                match chance.randrange(4):
                    case 0:
                        kept = {"error": "", "metrics": "", "keeps_call": True, "parks": False}
                        ids = {"run_ids": [run["run_id"]], "fences": [run["fence"]]}
                        perform(own, "release_runs", **ids, delay=0, **kept)
                    case 1:
                        own.execute("select pgrun.cancel(%s)", [run["run_id"]])  # its worker lives, so it goes on
                        perform(own, "stop_worker", worker_id=workers[number])
                        own.execute(
                            "update pgrun.workers set stopped_at = null where worker_id = %s", [workers[number]]
                        )
                    case _:
                        finish(own, run["run_id"], run["fence"])
        return seen

    with crew(dsn) as threads:
        started = [threads.start(work, number) for number in range(THREADS)]
        seen = [counts for thread in started for counts in thread.result()]
    assert max(all_of_them for all_of_them, _ in seen) == MOST
    assert max(of_key for _, of_key in seen) == MOST_OF_KEY


@pytest.mark.slow
async def test_a_rate_holds_whoever_claims(db: PostgresDb, conn: Conn, dsn: str) -> None:
    rate, burst = 400, 5
    conn.execute("update pgrun.queues set rate = %s, burst = %s", [rate, burst])
    conn.execute("insert into pgrun.jobs (name) select 'noop' from generate_series(1, 200)")
    workers = [(await hire(db)).worker_id for _ in range(4)]

    def work(own: Conn, number: int) -> None:
        while one(own, "select exists (select from pgrun.jobs where status = 'pending')"):
            claim_limited(own, workers[number], slots=10)

    with crew(dsn) as threads:
        for thread in [threads.start(work, number) for number in range(4)]:
            thread.result()
    most = conn.execute(STARTED.encode(), [rate]).fetchone()
    assert most
    assert burst - 1 < most["max"] < burst + 0.01
