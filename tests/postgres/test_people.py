"""Agents whose runs wait for people, from Python: what a caller holds in hand, and how the run goes on."""

from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.models import ScriptedModel, calling
from support.rows import row_of, until_all

from pgrun import (
    Agent,
    PostgresDb,
    RunCancelled,
    RunContext,
    RunFailed,
    RunNotFound,
    RunStatus,
    Settings,
    ToolFailed,
    UsageError,
    WaitTimeout,
    Worker,
    tool,
)
from pgrun._ids import new_run_id

ASKS = calling(("refund", '{"order": 7}'))


class Receipt(BaseModel):
    cents: int


@tool(requires_confirmation=True)
def refund(order: int) -> str:
    """Pays money back."""
    if order == 13:
        raise ToolFailed("the bank is closed")
    return f"refunded {order}"


def desk(db: PostgresDb, *answers: Any, **options: Any) -> Agent[Any]:
    return Agent(
        name="Desk", model=ScriptedModel(*(answers or (ASKS, "Done."))), db=db, **{"tools": [refund]} | options
    )


async def test_a_foreground_call_returns_the_paused_run_and_what_it_waits_for(db: PostgresDb, conn: Conn) -> None:
    agent = desk(db)
    async with Worker(db):
        run = await agent.arun("Order 7.")
        assert (run.status, run.is_paused, run.content) == (RunStatus.paused, True, None)
        (asked,) = run.active_requirements
        assert (asked.kind, asked.name, asked.arguments) == ("confirmation", "refund", {"order": 7})
        assert [(each.name, each.result, each.error) for each in run.tools] == [("refund", None, None)]
        assert run.metrics.total_tokens == 13
        asked.confirm("fine", by="ada")
        ended = await agent.acontinue_run(run)
    assert (ended.status, ended.content, ended.attempt) == (RunStatus.completed, "Done.", 1)
    assert ended.active_requirements == []
    assert [(each.approved, each.note, each.decided_by) for each in ended.requirements] == [(True, "fine", "ada")]
    assert [each.result for each in ended.tools] == ["refunded 7"]
    assert ended.metrics.total_tokens == 26


async def test_the_type_of_the_answer_is_not_lost_over_a_pause(db: PostgresDb) -> None:
    agent = desk(db, ASKS, '{"cents": 100}')
    async with Worker(db):
        run = await agent.arun("Order 7.", output_schema=Receipt)
        run.active_requirements[0].confirm()
        assert (await agent.acontinue_run(run)).content == Receipt(cents=100)
    model = agent.definition.model
    assert isinstance(model, ScriptedModel)
    assert [asked.output.name for asked in model.asked if asked.output] == ["Receipt", "Receipt"]


async def test_whoever_waits_for_the_result_goes_on_waiting_while_it_is_paused(db: PostgresDb, conn: Conn) -> None:
    agent = desk(db)
    results: list[Any] = []
    async with Worker(db), anyio.create_task_group() as tasks:
        run = await agent.arun("Order 7.", background=True)

        async def wait() -> None:
            results.append(await run.aresult(timeout=10))

        tasks.start_soon(wait)
        await until_all(conn, "paused", [run.run_id])
        with pytest.raises(WaitTimeout, match=r"is still paused after 0 s: it waits for a person \(refund\)"):
            await run.aresult(timeout=0)
        assert results == []
        conn.execute("select pgrun.approve(%s)", [run.run_id])
    assert results == ["Done."]


async def test_the_run_may_go_on_in_the_background(db: PostgresDb) -> None:
    agent = desk(db)
    async with Worker(db):
        run = await agent.arun("Order 7.")
        run.active_requirements[0].reject("no")
        going_on = await agent.acontinue_run(
            run_id=run.run_id, requirements=run.active_requirements, output_schema=str, background=True
        )
        assert not going_on.is_paused
        assert await going_on.aresult(timeout=10) == "Done."


async def test_a_run_that_pauses_again_comes_back_again(db: PostgresDb) -> None:
    agent = desk(db, ASKS, ASKS, "Done.")
    async with Worker(db):
        run = await agent.arun("Order 7.")
        steps = []
        while run.is_paused:
            (asked,) = run.active_requirements
            steps.append(asked.step)
            asked.confirm()
            run = await agent.acontinue_run(run)
    assert (run.content, steps) == ("Done.", [2, 4])


async def test_a_decision_is_sent_once_however_often_the_caller_goes_on(db: PostgresDb) -> None:
    agent = desk(db, ASKS, ASKS, "Done.")
    async with Worker(db):
        run = await agent.arun("Order 7.")
        run.active_requirements[0].confirm()
        again = await agent.acontinue_run(run)
        assert again.is_paused  # for the second call, which has the same id in this test
        with pytest.raises(
            UsageError, match=r"nothing was decided; the run waits for refund \(confirmation, call call_1\)"
        ):
            await agent.acontinue_run(run)


async def test_a_decision_that_was_stored_unnoticed_decides_on_nothing_else_when_it_is_sent_again(
    db: PostgresDb,
) -> None:
    agent = desk(db, ASKS, ASKS, "Done.")
    async with Worker(db):
        run = await agent.arun("Order 7.")
        (asked,) = run.active_requirements
        asked.confirm()
        await db.approve(run.run_id, [asked.decision()], queue="default")
        assert (await agent.acontinue_run(run_id=run.run_id)).is_paused  # for the second call, which has the same id
        again = await agent.acontinue_run(run)
        assert [each.approved for each in again.requirements] == [True, None]


async def test_what_is_left_open_is_what_it_still_waits_for(db: PostgresDb, conn: Conn) -> None:
    agent = desk(db, calling(("refund", '{"order": 7}'), ("refund", '{"order": 8}')), "Done.")
    async with Worker(db):
        run = await agent.arun("Orders.")
        first, second = run.active_requirements
        first.confirm()
        run = await agent.acontinue_run(run)
        assert [each.call_id for each in run.active_requirements] == [second.call_id]
        run.active_requirements[0].reject()
        assert (await agent.acontinue_run(run)).content == "Done."


async def test_going_on_with_a_run_that_goes_on_waits_for_it(db: PostgresDb, conn: Conn) -> None:
    agent = desk(db)
    async with Worker(db):
        run = await agent.arun("Order 7.")
        conn.execute("select pgrun.approve(%s)", [run.run_id])
        assert (await agent.acontinue_run(run)).content == "Done."
        assert (await agent.acontinue_run(run_id=run.run_id)).content == "Done."


async def test_what_became_of_it_is_raised_as_by_a_foreground_call(db: PostgresDb) -> None:
    agent = desk(db, calling(("refund", '{"order": 13}')), ASKS)
    async with Worker(db):
        run = await agent.arun("Order 13.")
        run.active_requirements[0].confirm()
        with pytest.raises(RunFailed, match="the bank is closed"):
            await agent.acontinue_run(run)
        cancelled = await agent.arun("Order 7.")
        assert await agent.acancel_run(cancelled.run_id)
        cancelled.active_requirements[0].confirm()
        with pytest.raises(UsageError, match="is cancelled: it waits for nobody"):
            await agent.acontinue_run(cancelled)
        with pytest.raises(RunCancelled):
            await agent.acontinue_run(run_id=cancelled.run_id)
        with pytest.raises(RunNotFound):
            await agent.acontinue_run(run_id=new_run_id())


async def test_cancelling_who_goes_on_leaves_the_run_alone(db: PostgresDb, conn: Conn) -> None:
    agent = desk(db)
    async with Worker(db):
        run = await agent.arun("Order 7.")
    run.active_requirements[0].confirm()
    with anyio.move_on_after(0.3) as scope:
        await agent.acontinue_run(run)
    assert scope.cancelled_caught
    assert row_of(conn, run.run_id)["status"] == "pending"


async def test_asking_twice_for_the_same_run_gives_the_paused_one(db: PostgresDb) -> None:
    agent, run_id = desk(db), new_run_id()
    async with Worker(db):
        for _ in range(2):
            run = await agent.arun("Order 7.", run_id=run_id)
            assert run.is_paused


async def test_a_paused_run_holds_no_slot(db: PostgresDb) -> None:
    agent = desk(db, ASKS, "Another.", "Done.")
    async with Worker(db, concurrency=1):
        run = await agent.arun("Order 7.")
        assert (await agent.arun("Something else.")).content == "Another."
        run.active_requirements[0].confirm()
        assert (await agent.acontinue_run(run)).content == "Done."


async def test_a_session_waits_for_its_paused_run_unless_the_agent_says_otherwise(db: PostgresDb, conn: Conn) -> None:
    for holds, status in ((True, "pending"), (False, "completed")):
        agent = desk(db, ASKS, *(["Done."] if holds else ["Another.", "Done."]), holds_session_while_paused=holds)
        async with Worker(db):
            run = await agent.arun("Order 7.", session_id=f"s{holds}")
            other = await agent.arun("Another?", session_id=f"s{holds}", background=True)
            if not holds:
                assert await other.aresult(timeout=10) == "Another."
            assert row_of(conn, other.run_id)["status"] == status
            if holds:
                assert row_of(conn, other.run_id)["held"] == "session"
                continue
            run.active_requirements[0].confirm()
            assert (await agent.acontinue_run(run)).content == "Done."


async def test_the_same_without_an_event_loop(db: PostgresDb) -> None:
    agent = desk(db)

    def decide() -> Any:
        run = agent.run("Order 7.")
        run.active_requirements[0].confirm()
        return agent.continue_run(run).content

    async with Worker(db):
        assert await anyio.to_thread.run_sync(decide) == "Done."


async def test_a_process_alone_goes_on_with_its_run_itself(dsn: str) -> None:
    async with PostgresDb(dsn, worker="auto") as first:
        run = await desk(first).arun("Order 7.")
    async with PostgresDb(dsn, worker="auto") as second:
        agent = desk(second, "Done.")
        run.active_requirements[0].confirm()
        ended = await agent.acontinue_run(run_id=run.run_id, requirements=run.active_requirements, output_schema=str)
    assert ended.content == "Done."


async def test_a_foreground_call_hears_of_the_pause_by_polling_too(dsn: str, db: PostgresDb) -> None:
    deaf = Settings(poll_interval=0.2, poll_interval_without_listen=0.2)
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    async with PostgresDb(dsn, worker="external", listen_url=nowhere, settings=deaf) as caller, Worker(db):
        agent = desk(caller)
        run = await agent.arun("Order 7.")
        assert run.is_paused
        run.active_requirements[0].confirm()
        assert (await agent.acontinue_run(run)).content == "Done."


async def test_tools_that_wait_know_their_run_like_any_other(db: PostgresDb) -> None:
    contexts: list[RunContext] = []

    @tool(requires_user_input=True, user_input_fields=["street"])
    def ship(order: int, street: str, run: RunContext) -> str:
        contexts.append(run)
        return street

    agent = desk(db, calling(("ship", '{"order": 7}')), "Done.", tools=[ship])
    async with Worker(db):
        run = await agent.arun("Order 7.", metadata={"customer": 7})
        run.active_requirements[0].provide_user_input({"street": "Elm"})
        await agent.acontinue_run(run)
    assert [(each.metadata, each.run_id) for each in contexts] == [({"customer": 7}, run.run_id)]
    assert contexts[0].idempotency_key
