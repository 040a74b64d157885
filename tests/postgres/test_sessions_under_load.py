"""The rule of sessions, while many submit into the same session whose runs end at the same time."""

from collections import defaultdict
from threading import Barrier

import pytest
from support.crew import crew
from support.database import Conn
from support.hands import hire
from support.tables import claim, finish, one, perform

from pgrun import PostgresDb

THREADS = 6

ONE_AT_A_TIME = (
    "create unique index one_at_a_time on pgrun.jobs (session_id) where finished_at is null and held is null"
)
"""With this the database itself refuses, at any instant, a second open run of a session that is not held."""

LINGER = "select pg_sleep(random() * 0.003)"
"""Before the commit: makes it likely that the transactions overlap in every possible way."""


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [200, pytest.param(3000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
async def test_a_run_submitted_while_the_open_one_ends_is_neither_forgotten_nor_started_beside_another(
    db: PostgresDb, conn: Conn, dsn: str, rounds: int
) -> None:
    conn.execute(ONE_AT_A_TIME)
    conn.execute("alter function pgrun._open_session(text) set lock_timeout = '60s'")
    conn.execute(
        "insert into pgrun.jobs (name, session_id) select 'noop', 's' || n from generate_series(1, %s) n", [rounds]
    )
    claimed = await (await hire(db)).claim(rounds)
    together = Barrier(3, timeout=15)

    def end_each(own: Conn) -> None:
        for run in claimed:
            together.wait()
            with own.transaction():
                assert finish(own, run.run_id, run.fence)
                own.execute(LINGER)

    def submit_each(own: Conn) -> None:
        for run in claimed:
            together.wait()
            with own.transaction():
                own.execute("insert into pgrun.jobs (name, session_id) values ('noop', %s)", [run.session_id])
                own.execute(LINGER)

    with crew(dsn) as threads:
        for thread in [threads.start(job) for job in (end_each, submit_each, submit_each)]:
            thread.result()
    open_runs = conn.execute(
        "select session_id, array_agg(session_seq order by session_seq) as places, "
        "array_agg(session_seq) filter (where held is null) as may_start "
        "from pgrun.jobs where finished_at is null group by session_id"
    ).fetchall()
    assert len(open_runs) == rounds
    assert [row for row in open_runs if row["places"] != [2, 3] or row["may_start"] != [2]] == []


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("lock_timeout", ["60s", "100ms", "1ms"])
async def test_never_two_at_once_never_all_held_and_always_in_order(
    db: PostgresDb, conn: Conn, dsn: str, lock_timeout: str
) -> None:
    """However long whoever ends a run waits for its session; if it waits to the end, open_sessions is never needed."""
    conn.execute(ONE_AT_A_TIME)
    conn.execute(f"alter function pgrun._open_session(text) set lock_timeout = '{lock_timeout}'".encode())
    begun: dict[str, list[int]] = defaultdict(list)
    together = Barrier(THREADS, timeout=30)

    def work(own: Conn, worker_id: str) -> None:
        """Submits and ends one run after the other, so that the session is often about to become empty."""
        for number in range(100):
            if number % 10 == 0:
                together.wait()
            own.execute(
                "insert into pgrun.jobs (name, session_id) select 'noop', %s from generate_series(1, %s)",
                [f"s{number // 10}", 1 + number % 2],
            )
            work_off(own, worker_id)

    def work_off(own: Conn, worker_id: str) -> None:
        while claimed := claim(own, worker_id):
            for row in claimed:
                place = one(own, "select session_seq from pgrun.jobs where run_id = %s", row["run_id"])
                begun[row["session_id"]].append(place)
                assert finish(own, row["run_id"], row["fence"])

    with crew(dsn) as threads:
        for thread in [threads.start(work, (await hire(db)).worker_id) for _ in range(THREADS)]:
            thread.result()

    last = (await hire(db)).worker_id
    work_off(conn, last)
    if lock_timeout != "60s":
        while one(conn, "select count(*) from pgrun.jobs where finished_at is null"):
            perform(conn, "open_sessions")
            assert one(conn, "select count(*) from pgrun.jobs where finished_at is null and held is null") > 0
            work_off(conn, last)
    assert begun == {f"s{number}": [*range(1, THREADS * 15 + 1)] for number in range(10)}
    assert one(conn, "select count(*) from pgrun.jobs where status <> 'completed'") == 0
