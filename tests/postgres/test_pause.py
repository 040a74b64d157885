"""pause_run.sql: a run that waits for people holds no worker, has a place in its session, and shows what it waits for."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from support.database import Conn
from support.ear import Ear
from support.hands import failed, hire, submit
from support.pausing import REFUND, SHIP, approve, pause, paused
from support.rows import row_of
from support.tables import one, status

from pgrun import PostgresDb, UsageError


async def test_a_paused_run_is_held_by_nobody_and_has_its_attempt_back(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    assert await pause(hand, claimed) == "paused"
    row = row_of(conn, run_id)
    assert (row["status"], row["attempt"], row["fence"], row["held"]) == ("paused", 0, 1, None)
    assert (row["requirements"], row["metrics"]) == ([REFUND], {"total_tokens": 7})
    assert row["paused_at"] is not None
    assert row["finished_at"] is None
    assert await hand.claim() == []
    assert ear.heard() == [("done", run_id)]  # whoever waits in the foreground hears of it
    assert one(conn, "select running from pgrun.worker_status") == 0


async def test_a_stale_worker_pauses_nothing_and_a_repeat_finds_what_it_did(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db)
    assert await pause(hand, claimed) == "paused"
    assert await pause(hand, claimed, SHIP) is None
    assert row_of(conn, claimed.run_id)["requirements"] == [REFUND]
    approve(conn, claimed.run_id)
    assert await pause(hand, claimed) == "pending"
    again = await hand.claim_one()
    assert await pause(hand, claimed) == "running"
    assert await pause(hand, claimed, SHIP) is None
    assert status(conn, claimed.run_id) == "running"
    assert await pause(hand, again, SHIP) == "paused"


async def test_a_cancel_that_was_asked_for_is_carried_out_instead(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await hand.verbs.cancel(claimed.run_id)
    ear.heard()
    assert await pause(hand, claimed, holds_session=False) == "cancelled"
    assert row_of(conn, claimed.run_id)["finished_at"] is not None
    assert ear.heard() == [("done", claimed.run_id)]
    assert await pause(hand, claimed) == "cancelled"
    assert await pause(hand, claimed, SHIP) is None


async def test_a_paused_run_holds_its_session(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db, session_id="s")
    later = await submit(db, session_id="s")
    assert row_of(conn, later)["held"] == "session"
    approve(conn, claimed.run_id)
    assert [run.run_id for run in await hand.claim()] == [claimed.run_id]


async def test_one_that_steps_aside_lets_the_next_run_of_its_session_start(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    assert await pause(hand, claimed, holds_session=False) == "paused"
    assert [row_of(conn, run_id)["held"] for run_id in (first, second, third)] == ["person", None, "session"]
    assert {*ear.heard()} == {("wake", "default"), ("done", first)}
    assert (await hand.claim_one()).run_id == second


async def test_one_that_stepped_aside_goes_on_behind_the_run_that_is_open_and_before_all_others(
    db: PostgresDb, conn: Conn
) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    await pause(hand, await hand.claim_one(), holds_session=False)
    claimed = await hand.claim_one()
    assert approve(conn, first) == "pending"
    assert [row_of(conn, run_id)["held"] for run_id in (first, second, third)] == ["session", None, "session"]
    assert await hand.claim() == []
    await hand.complete(claimed)
    assert [run.run_id for run in await hand.claim()] == [first]


async def test_one_that_stepped_aside_goes_on_at_once_where_nothing_is_open(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    hand, claimed = await paused(db, holds_session=False, session_id="s")
    later = await submit(db, session_id="s")
    assert row_of(conn, later)["held"] is None
    await hand.complete(await hand.claim_one())
    ear.heard()
    assert approve(conn, claimed.run_id) == "pending"
    assert ear.heard() == [("wake", "default")]
    assert (await hand.claim_one()).run_id == claimed.run_id


async def test_cancelling_one_that_stepped_aside_opens_nothing(db: PostgresDb, conn: Conn) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    await pause(hand, await hand.claim_one(), holds_session=False)
    await hand.claim_one()
    assert await hand.verbs.cancel(first) == "cancelled"
    assert [row_of(conn, run_id)["held"] for run_id in (first, second, third)] == [None, None, "session"]


async def test_a_run_that_is_retried_does_not_wait_for_one_that_stepped_aside(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db, holds_session=False, session_id="s")
    later = await submit(db, session_id="s")
    await hand.verbs.finish([failed(await hand.claim_one())])
    assert await hand.verbs.retry_ended(later) == "pending"
    assert row_of(conn, later)["held"] is None
    assert status(conn, claimed.run_id) == "paused"


async def test_a_paused_run_cannot_be_retried_and_a_cancelled_one_begins_anew(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db)
    with pytest.raises(UsageError, match=r"It waits for a person: pgrun\.approve\(run_id\)\."):
        await hand.verbs.retry_ended(claimed.run_id)
    await hand.verbs.cancel(claimed.run_id)
    await hand.verbs.retry_ended(claimed.run_id)
    row = row_of(conn, claimed.run_id)
    assert (row["status"], row["requirements"], row["begun"], row["paused_at"]) == ("pending", None, None, None)


async def test_the_views_tell_what_is_waited_for(db: PostgresDb, conn: Conn) -> None:
    _, claimed = await paused(db, REFUND, SHIP)
    conn.execute("update pgrun.jobs set started_at = now() - interval '1 h', paused_at = now() - interval '50 min'")
    row = conn.execute("select status, waits_for, duration from pgrun.runs").fetchone()
    assert row is not None
    assert (row["status"], row["waits_for"]) == ("paused", "confirmation of refund, confirmation of ship")
    assert row["duration"].total_seconds() == 600
    assert conn.execute("select depth, held, running, waiting_for_people from pgrun.queue_stats").fetchone() == {
        **{"depth": 0, "held": 0, "running": 0, "waiting_for_people": 1}
    }
    approve(conn, claimed.run_id)
    assert one(conn, "select waits_for from pgrun.runs") is None


async def test_a_step_that_has_begun_is_noted_until_its_end_is_recorded(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, kind="agent")
    hand = await hire(db)
    claimed = await hand.claim_one()
    for number in (2, 3, 2):
        assert await hand.verbs.begin_step(claimed, number=number, name="refund", times=1)
    begun = row_of(conn, run_id)["begun"]
    assert {step: (call["name"], call["times"]) for step, call in begun.items()} == {
        "2": ("refund", 1),
        "3": ("refund", 1),
    }
    assert await hand.verbs.unfinished(run_id) == ([], {2: 1, 3: 1}, None)
    for number in (1, 2):
        facts: dict[str, Any] = {"kind": "tool_call", "name": "refund", "data": {}, "duration": 0.1, "metrics": None}
        assert await hand.verbs.record_step(claimed, number=number, **facts)
    assert await hand.verbs.unfinished(run_id) == ([], {3: 1}, None)
    await hand.verbs.release([(run_id, claimed.fence)])
    assert not await hand.verbs.begin_step(claimed, number=4, name="refund", times=1)
    assert [*row_of(conn, run_id)["begun"]] == ["3"]


async def test_requirements_are_kept_as_they_were_written(db: PostgresDb, conn: Conn) -> None:
    wild = {**REFUND, "arguments": {"text": 'it\'s "so"\n%s ☃', "none": None}}
    _, claimed = await paused(db, wild)
    assert one(conn, "select requirements = %s from pgrun.jobs", Jsonb([wild]))
    approve(conn, claimed.run_id, ", note => %s", "it's ☃")
    assert row_of(conn, claimed.run_id)["requirements"][0]["arguments"] == wild["arguments"]
