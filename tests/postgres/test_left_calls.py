"""Calls of the model in the rows of runs: who may note one, what becomes of it, and which are left when a run has ended."""

from collections.abc import Callable
from typing import Any

import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, cancelled, completed, failed, hire, lose, submit
from support.models import ScriptedModel
from support.rows import row_of
from support.tables import one, perform

from pgrun import PostgresDb
from pgrun._stopping import stop_left_calls
from pgrun.db.records import Claimed, Ending
from pgrun.run.definition import AgentDefinition

ERROR: dict[str, Any] = {"type": "ModelUnavailable", "message": "away"}


async def calling(db: PostgresDb, **columns: Any) -> tuple[Hand, Claimed]:
    """A worker in the middle of a call."""
    await submit(db, **columns)
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await hand.verbs.note_call(claimed, 1, "resp_1")
    return hand, claimed


def left(conn: Conn) -> list[str]:
    return [row["response_id"] for row in conn.execute("select response_id from pgrun.left_calls").fetchall()]


def call_of(conn: Conn, run: Claimed) -> Any:
    return row_of(conn, run.run_id)["call"]


async def test_a_call_is_noted_first_as_an_intent_and_then_with_its_id(db: PostgresDb, conn: Conn) -> None:
    await submit(db)
    hand = await hire(db)
    run = await hand.claim_one()
    assert (await hand.verbs.unfinished(run.run_id)).call is None
    assert await hand.verbs.note_call(run, 3, None)
    assert (await hand.verbs.unfinished(run.run_id)).call == {"step": 3, "response_id": None}
    for _ in range(2):
        assert await hand.verbs.note_call(run, 3, "resp_1")
    assert call_of(conn, run) == {"step": 3, "response_id": "resp_1"}
    assert await hand.verbs.note_call(run, 4, "resp_2")
    assert (await hand.verbs.unfinished(run.run_id)).call == {"step": 4, "response_id": "resp_2"}


async def test_a_stale_worker_notes_nothing(db: PostgresDb, conn: Conn) -> None:
    first, stale = await calling(db)
    second = await hire(db)
    lose(conn, first)
    await second.verbs.rescue(second.worker_id)
    held = await second.claim_one()
    assert not await first.verbs.note_call(stale, 2, "resp_9")
    assert call_of(conn, held) == {"step": 1, "response_id": "resp_1"}
    await second.complete(held)
    assert not await second.verbs.note_call(held, 2, "resp_9")


async def test_a_recorded_step_ends_the_call(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    step: dict[str, Any] = {"number": 1, "kind": "model_call", "name": "m", "duration": 0.5, "data": {}}
    assert await hand.verbs.record_step(run, **step, metrics=None)
    assert call_of(conn, run) is None


async def test_a_call_goes_with_the_run_to_the_next_attempt_unless_it_is_over(db: PostgresDb, conn: Conn) -> None:
    for keeps_call in (True, False):
        hand, run = await calling(db)
        kept = {"step": 1, "response_id": "resp_1"} if keeps_call else None
        await hand.verbs.retry(run, delay=0, error=ERROR, metrics=None, keeps_call=keeps_call)
        assert call_of(conn, run) == kept
        again = await hand.claim_one()
        assert call_of(conn, again) == kept
        await hand.verbs.note_call(again, 1, "resp_1")
        await hand.verbs.release([(again.run_id, again.fence)], keeps_call=keeps_call)
        assert call_of(conn, run) == kept
        await hand.complete(await hand.claim_one())
        assert call_of(conn, run) is None
    assert left(conn) == []


async def test_a_run_that_has_its_answer_leaves_no_call(db: PostgresDb, conn: Conn) -> None:
    for ending in (completed, failed, cancelled):
        hand, run = await calling(db)
        await hand.verbs.finish([ending(run)])
        assert call_of(conn, run) is None
    assert left(conn) == []


async def _by_its_worker(hand: Hand, run: Claimed, conn: Conn) -> None:
    ending = cancelled(run)
    ending.keeps_call = True
    await hand.verbs.finish([ending])


async def _by_whoever_cancels_after_its_worker_died(hand: Hand, run: Claimed, conn: Conn) -> None:
    lose(conn, hand)
    assert await hand.verbs.cancel(run.run_id) == "cancelled"


async def _while_it_waits_for_its_next_attempt(hand: Hand, run: Claimed, conn: Conn) -> None:
    await hand.verbs.retry(run, delay=60, error=ERROR, metrics=None, keeps_call=True)
    assert await hand.verbs.cancel(run.run_id) == "cancelled"


async def _by_its_worker_that_gives_it_back(hand: Hand, run: Claimed, conn: Conn) -> None:
    await hand.verbs.cancel(run.run_id)
    await hand.verbs.release([(run.run_id, run.fence)])


async def _by_its_worker_that_says_goodbye(hand: Hand, run: Claimed, conn: Conn) -> None:
    await hand.verbs.cancel(run.run_id)
    await hand.verbs.stop_worker(hand.worker_id)


async def _by_whoever_finds_its_worker_dead(hand: Hand, run: Claimed, conn: Conn) -> None:
    conn.execute("update pgrun.jobs set max_attempts = 1")
    lose(conn, hand)
    perform(conn, "rescue_runs", worker_id="00000000-0000-0000-0000-000000000000")
    assert row_of(conn, run.run_id)["status"] == "error"


async def _by_hand(hand: Hand, run: Claimed, conn: Conn) -> None:
    conn.execute("update pgrun.jobs set status = 'cancelled', finished_at = now()")


@pytest.mark.parametrize(
    "end",
    [
        _by_its_worker,
        _by_whoever_cancels_after_its_worker_died,
        _while_it_waits_for_its_next_attempt,
        _by_its_worker_that_gives_it_back,
        _by_its_worker_that_says_goodbye,
        _by_whoever_finds_its_worker_dead,
        _by_hand,
    ],
)
async def test_a_run_that_ends_in_a_call_leaves_it_however_it_ends(
    db: PostgresDb, conn: Conn, ear: Ear, end: Callable[[Hand, Claimed, Conn], Any]
) -> None:
    hand, run = await calling(db)
    await end(hand, run, conn)
    assert left(conn) == ["resp_1"]
    assert ("cancel", "left") in ear.heard()


async def test_an_intent_without_an_id_leaves_nothing(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    await hand.verbs.note_call(run, 2, None)
    await _by_hand(hand, run, conn)
    assert left(conn) == []


async def test_a_left_call_is_one_callers_for_a_minute(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    await _by_hand(hand, run, conn)
    (call,) = await hand.verbs.take_left_calls(["noop"], queues=["default"])
    assert (call.run_id, call.response_id, call.name, call.definition) == (run.run_id, "resp_1", "noop", None)
    assert await hand.verbs.take_left_calls(["noop"], queues=["default"]) == []
    conn.execute("update pgrun.left_calls set due_at = now()")
    assert await hand.verbs.take_left_calls(["noop"], run_id=run.run_id) == [call]
    await hand.verbs.forget_left_call(call)
    assert left(conn) == []


async def test_a_left_call_is_for_those_who_have_its_model(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    await _by_hand(hand, run, conn)
    assert await hand.verbs.take_left_calls([], queues=["default"]) == []
    assert await hand.verbs.take_left_calls(["noop"], queues=["mail"]) == []
    assert await hand.verbs.take_left_calls(["noop"]) == []
    conn.execute("""update pgrun.jobs set definition = '{"model": {}}'""")
    (call,) = await hand.verbs.take_left_calls([], queues=["mail", "default"])
    assert call.definition == '{"model": {}}'


async def test_it_is_stopped_at_each_model_that_it_may_be_from(db: PostgresDb, conn: Conn) -> None:
    class Stoppable(ScriptedModel):
        def __init__(self) -> None:
            super().__init__()
            self.stopped: list[str] = []

        async def stop(self, response_id: str) -> None:
            self.stopped.append(response_id)

    first, parser = Stoppable(), Stoppable()
    hand, run = await calling(db, kind="agent", definition={})
    await hand.verbs.finish([Ending(run, "cancelled", {}, keeps_call=True)])
    taken = await hand.verbs.take_left_calls([], run_id=run.run_id)
    await stop_left_calls(hand.verbs, taken, lambda *_: AgentDefinition(first, parser_model=parser))
    assert first.stopped == parser.stopped == ["resp_1"]
    assert left(conn) == []


async def test_after_a_day_nobody_tries_any_more(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    await _by_hand(hand, run, conn)
    conn.execute("update pgrun.left_calls set left_at = now() - interval '25 hours'")
    assert await hand.verbs.take_left_calls(["noop"], queues=["default"]) == []


async def test_a_person_who_retries_an_ended_run_lets_it_ask_anew(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    await _by_hand(hand, run, conn)
    one(conn, "select pgrun.retry(%s)", run.run_id)
    assert call_of(conn, run) is None
    assert left(conn) == ["resp_1"], "the old answer has to be stopped all the same"


async def test_a_pending_run_that_a_person_makes_due_keeps_its_call(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    await hand.verbs.retry(run, delay=60, error=ERROR, metrics=None, keeps_call=True)
    one(conn, "select pgrun.retry(%s)", run.run_id)
    assert call_of(conn, run) == {"step": 1, "response_id": "resp_1"}


async def test_left_calls_go_with_their_run(db: PostgresDb, conn: Conn) -> None:
    hand, run = await calling(db)
    await _by_hand(hand, run, conn)
    assert await db.aprune(0) == 1
    assert left(conn) == []
