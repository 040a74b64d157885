"""Two who want the same run at the same instant: one of them gets it, the other learns so, and nothing is done twice."""

from collections.abc import Callable
from threading import Barrier
from typing import Any, TypeVar

import pytest
from support.crew import crew
from support.database import Conn
from support.hands import Hand, hire, lose
from support.rows import Row
from support.tables import finish, one, perform

from pgrun import PostgresDb
from pgrun.db.records import Claimed

T = TypeVar("T")

ROUNDS = pytest.mark.parametrize("rounds", [30, pytest.param(1500, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])

LINGER = "select pg_sleep(random() * 0.003)"
"""Before the commit: makes it likely that the transactions overlap in every possible way."""


def duel(
    dsn: str, claimed: list[Claimed], one_side: Callable[[Conn, Claimed], T], other_side: Callable[[Conn, Claimed], T]
) -> list[tuple[T, T]]:
    """What each side says of each run; both begin with it at the same instant."""
    together = Barrier(2, timeout=15)

    def act(own: Conn, side: Callable[[Conn, Claimed], T]) -> list[T]:
        said = []
        for run in claimed:
            together.wait()
            with own.transaction():
                own.execute("select pg_sleep(random() * 0.001)")
                said.append(side(own, run))
                own.execute(LINGER)
        return said

    with crew(dsn) as threads:
        sides = [threads.start(act, side) for side in (one_side, other_side)]
        return [*zip(*(side.result() for side in sides), strict=True)]


async def taken(db: PostgresDb, conn: Conn, rounds: int) -> tuple[list[Hand], list[Claimed]]:
    """Workers that hold one run each, the first of a session in which another waits."""
    hands, claimed = [], []
    for number in range(rounds):
        conn.execute("insert into pgrun.jobs (name, session_id) values ('noop', %(s)s), ('noop', %(s)s)", {"s": number})
        hands.append(await hire(db))
        claimed.append(await hands[-1].claim_one())
    return hands, claimed


def state(conn: Conn, run: Claimed) -> Row:
    row = conn.execute(
        "select j.*, (select array_agg(a.outcome) from pgrun.attempts a where a.run_id = j.run_id) as history "
        "from pgrun.jobs j where run_id = %s",
        [run.run_id],
    ).fetchone()
    assert row is not None
    return row


def end(own: Conn, run: Claimed) -> Any:
    return finish(own, run.run_id, run.fence)


def fail(own: Conn, run: Claimed) -> Any:
    rest = {"delay": 60, "error": '{"type": "ValueError"}', "metrics": "", "keeps_call": False}
    return bool(perform(own, "retry_run", run_id=run.run_id, fence=run.fence, **rest))


def rescue_by(other: Hand, hands: list[Hand], claimed: list[Claimed]) -> Callable[[Conn, Claimed], Any]:
    """The worker of the run is found dead; whether the run was taken away from it."""
    held = {run.run_id: hand for run, hand in zip(claimed, hands, strict=True)}

    def rescue(own: Conn, run: Claimed) -> bool:
        lose(own, held[run.run_id])
        return run.run_id in {str(row["run_id"]) for row in perform(own, "rescue_runs", worker_id=other.worker_id)}

    return rescue


def cancel(own: Conn, run: Claimed) -> Any:
    return perform(own, "cancel_run", run_id=run.run_id)[0]["state"]


@ROUNDS
async def test_cancel_against_finish(db: PostgresDb, conn: Conn, dsn: str, rounds: int) -> None:
    """By turns with a live worker, which is only asked, and with one that is taken for dead and is not."""
    hands, claimed = await taken(db, conn, rounds)
    for hand in hands[::2]:
        lose(conn, hand)
    for number, (run, said) in enumerate(zip(claimed, duel(dsn, claimed, end, cancel), strict=True)):
        row = state(conn, run)
        if number % 2:
            assert said in [(True, "cancelling"), (True, "completed")]
        else:
            assert said in [(True, "completed"), (False, "cancelled")]
        assert row["status"] == ("completed" if said[0] else "cancelled")
        assert (row["output"], row["history"]) == ("done" if said[0] else None, None)
    perform(conn, "open_sessions")  # for those that gave up on the lock of the session
    assert one(conn, "select count(*) from pgrun.jobs where status = 'pending' and held is null") == rounds


@ROUNDS
async def test_cancel_against_retry(db: PostgresDb, conn: Conn, dsn: str, rounds: int) -> None:
    _, claimed = await taken(db, conn, rounds)
    for run, said in zip(claimed, duel(dsn, claimed, fail, cancel), strict=True):
        row = state(conn, run)
        assert said in [(True, "cancelling"), (True, "cancelled")]
        assert (row["status"], row["attempt"], row["history"]) == ("cancelled", 1, ["failed"])
    perform(conn, "open_sessions")
    assert one(conn, "select count(*) from pgrun.jobs where status = 'pending' and held is null") == rounds


@ROUNDS
async def test_retry_against_rescue(db: PostgresDb, conn: Conn, dsn: str, rounds: int) -> None:
    """A worker that was cut off for too long comes back in the moment in which another takes over."""
    hands, claimed = await taken(db, conn, rounds)
    rescue = rescue_by(await hire(db), hands, claimed)
    for run, (retried, rescued) in zip(claimed, duel(dsn, claimed, fail, rescue), strict=True):
        row = state(conn, run)
        assert retried != rescued
        assert (row["status"], row["attempt"], row["fence"]) == ("pending", 1, 1)
        assert row["history"] == ["failed" if retried else "lost"]
    assert one(conn, "select count(*) from pgrun.jobs where held is null") == rounds


@ROUNDS
async def test_finish_against_rescue(db: PostgresDb, conn: Conn, dsn: str, rounds: int) -> None:
    hands, claimed = await taken(db, conn, rounds)
    rescue = rescue_by(await hire(db), hands, claimed)
    for run, (ended, rescued) in zip(claimed, duel(dsn, claimed, end, rescue), strict=True):
        row = state(conn, run)
        assert ended != rescued
        assert (row["status"], row["history"]) == (("completed", None) if ended else ("pending", ["lost"]))


@ROUNDS
async def test_a_recorded_step_against_rescue(db: PostgresDb, conn: Conn, dsn: str, rounds: int) -> None:
    """Whoever takes over finds the step, or it was refused: never a step that nobody knows of."""
    hands, claimed = await taken(db, conn, rounds)
    other = await hire(db)
    step = {"number": 1, "kind": "step", "name": "pay", "data": "7", "duration": 0, "metrics": ""}

    def record(own: Conn, run: Claimed) -> Any:
        return bool(perform(own, "record_step", run_id=run.run_id, fence=run.fence, **step))

    recorded = [kept for kept, _ in duel(dsn, claimed, record, rescue_by(other, hands, claimed))]
    perform(conn, "rescue_runs", worker_id=other.worker_id)  # rows that were locked are for the next round
    for run, kept in zip(claimed, recorded, strict=True):
        assert state(conn, run)["status"] == "pending"
        rows = perform(conn, "get_task_run", run_id=run.run_id)
        assert [row["step"] for row in rows] == [1 if kept else None]
