"""Messages for a run that is under way: each is read once, at a place of its own, and none is lost at the end."""

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.hands import hire, submit
from support.models import USAGE, ScriptedModel, calling
from support.rows import row_of
from support.steered import LOOK, Steered
from support.tables import one
from support.until import until

from pgrun import (
    Agent,
    ModelUnavailable,
    PostgresDb,
    RetryPolicy,
    RunEnded,
    RunNotFound,
    UsageError,
    Worker,
    tool,
)
from pgrun._ids import new_run_id
from pgrun.errors import AttemptError
from pgrun.models.base import ModelRequest, ModelResponse


async def test_what_is_said_during_a_tool_is_read_before_the_next_answer(db: PostgresDb, conn: Conn) -> None:
    steered = Steered(db, LOOK, "Sun.")
    steered.says_in_tool = "Quick!"
    async with Worker(db):
        assert await steered.answer({}) == "Sun."
    assert steered.shown(1)[1:] == [("assistant", ""), ("tool", "sun"), ("user", "Quick!")]
    steps = conn.execute("select step, kind, data from pgrun.steps order by step").fetchall()
    assert [row["kind"] for row in steps] == ["model_call", "tool_call", "message"]
    assert steps[2]["data"] == ["Quick!"]
    assert row_of(conn, steered.run_id)["fence"] == 1


async def test_a_run_that_was_about_to_end_takes_another_turn(db: PostgresDb, conn: Conn) -> None:
    steered = Steered(db, "Sun.", "Sun, and wind.")
    async with Worker(db):
        assert await steered.answer({0: "And the wind?"}) == "Sun, and wind."
    assert steered.shown(1) == [("user", "Rome?"), ("assistant", "Sun."), ("user", "And the wind?")]
    assert len(steered.model.asked) == 2
    row = row_of(conn, steered.run_id)
    assert (row["attempt"], row["metrics"]["total_tokens"]) == (1, 2 * USAGE.total_tokens)
    assert [message["content"] for message in row["steering"]] == ["And the wind?"]


async def test_it_may_be_about_to_end_again_and_again(db: PostgresDb) -> None:
    steered = Steered(db, LOOK, "1", LOOK, "2", "3")
    async with Worker(db):
        assert await steered.answer({0: "a", 1: "b", 3: "c"}) == "3"
    said = [text for role, text in steered.shown(4) if role == "user"]
    assert said == ["Rome?", "a", "b", "c"]
    assert [text for role, text in steered.shown(4) if role == "assistant"] == ["", "1", "", "2"]


async def test_a_typed_answer_is_kept_in_the_conversation(db: PostgresDb) -> None:
    class City(BaseModel):
        name: str

    steered = Steered(db, '{"name": "Rome"}', '{"name": "Oslo"}', output_schema=City, max_turns=1)
    async with Worker(db):
        assert (await steered.answer({0: "No, the other."})).name == "Oslo"
    assert steered.shown(1)[1:] == [("assistant", '{"name": "Rome"}'), ("user", "No, the other.")]


async def test_what_is_said_before_it_begins_follows_its_input(db: PostgresDb) -> None:
    steered = Steered(db, "Sun.")
    run = await steered.agent.arun("Rome?", background=True)
    for text in ("Now.", "Here."):
        assert await steered.agent.asteer(run.run_id, text) == "pending"
    async with Worker(db):
        await run.aresult(timeout=10)
    assert steered.shown(0) == [("user", "Rome?"), ("user", "Now."), ("user", "Here.")]


async def test_a_paused_run_hears_it_when_it_goes_on(db: PostgresDb, conn: Conn) -> None:
    @tool(requires_confirmation=True)
    def look(city: str) -> str:
        """Looks."""
        return "sun"

    model = ScriptedModel(LOOK, "Sun.")
    agent = Agent(name="Asking", model=model, tools=[look], db=db)
    async with Worker(db):
        run = await agent.arun("Rome?")
        assert await agent.asteer(run.run_id, "Quick!") == "paused"
        run.active_requirements[0].confirm()
        assert (await agent.acontinue_run(run)).content == "Sun."
    said = [(message.role, message.content) for message in model.asked[1].messages]
    assert said == [("user", "Rome?"), ("assistant", ""), ("tool", "sun"), ("user", "Quick!")]
    assert row_of(conn, run.run_id)["attempt"] == 1


async def test_a_run_that_waits_for_those_it_started_hears_it_when_it_goes_on(db: PostgresDb, conn: Conn) -> None:
    child: Agent[str] = Agent(name="Child", model=ScriptedModel("sun"), db=db, queue="children")
    model = ScriptedModel(calling(("Child", '{"request": "Rome?"}')), "Sun.")
    agent = Agent(name="Parent", model=model, tools=[child], db=db)
    conn.execute("insert into pgrun.queues (queue) values ('children')")
    async with Worker(db):
        run = await agent.arun("Rome?", background=True)
        await until(lambda: row_of(conn, run.run_id)["held"] == "children")
        assert await agent.asteer(run.run_id, "Quick!") == "pending"
        async with Worker(db, queues=["children"]):
            assert await run.aresult(timeout=10) == "Sun."
    assert [message.content for message in model.asked[1].messages] == ["Rome?", "", "sun", "Quick!"]


async def test_an_attempt_that_fails_has_heard_it_for_the_next(db: PostgresDb) -> None:
    steered = Steered(db, LOOK, ModelUnavailable("gone"), "Sun.", retry=RetryPolicy(base_delay=0))
    steered.says_in_tool = "Quick!"
    async with Worker(db):
        assert await steered.answer({}) == "Sun."
    assert steered.shown(2) == steered.shown(1)


async def test_nothing_can_be_said_to_a_run_that_has_ended(db: PostgresDb) -> None:
    steered = Steered(db, "Sun.")
    async with Worker(db):
        await steered.answer({})
    with pytest.raises(RunEnded, match=r"has ended \(completed\)") as caught:
        await steered.agent.asteer(steered.run_id, "Wait!")
    assert caught.value.run_id == steered.run_id
    with pytest.raises(RunNotFound):
        await steered.agent.asteer(new_run_id(), "Hello?")


async def test_nothing_can_be_said_to_a_task_or_a_run_that_is_being_cancelled(db: PostgresDb) -> None:
    verbs = (await db.connected()).verbs
    with pytest.raises(UsageError, match="only agents can be steered"):
        await verbs.steer(await submit(db), "Hello?")
    await submit(db, kind="agent", definition={}, priority=-1)
    claimed = await (await hire(db)).claim_one()
    await verbs.cancel(claimed.run_id)
    with pytest.raises(RunEnded, match="it is being cancelled"):
        await verbs.steer(claimed.run_id, "Wait!")
    for message in ("", "a\x00"):
        with pytest.raises(UsageError, match="message"):
            await Agent(model=ScriptedModel(), db=db).asteer(claimed.run_id, message)


async def test_an_end_with_an_error_or_by_cancelling_is_not_put_off(db: PostgresDb, conn: Conn) -> None:
    steered = Steered(db, AttemptError("that is it"))
    async with Worker(db):
        with pytest.raises(Exception, match="that is it"):
            await steered.answer({0: "And?"})
    assert row_of(conn, steered.run_id)["status"] == "error"


async def test_a_person_who_retries_the_run_has_all_of_it_heard_again(db: PostgresDb) -> None:
    steered = Steered(db, AttemptError("that is it"), "Sun.")
    async with Worker(db):
        with pytest.raises(Exception, match="that is it"):
            await steered.answer({0: "And?"})
        await (await db.connected()).verbs.retry_ended(steered.run_id)
        await db.await_runs([steered.run_id], timeout=10)
    assert steered.shown(1) == [("user", "Rome?"), ("user", "And?")]


async def test_of_many_messages_that_come_while_runs_end_none_is_lost(db: PostgresDb, conn: Conn) -> None:
    """Whoever was not told that the run has ended, was heard."""

    class Echo(ScriptedModel):
        async def call(self, request: ModelRequest) -> ModelResponse:
            await anyio.lowlevel.checkpoint()
            return ModelResponse(" ".join(message.content for message in request.messages if message.role == "user"))

    agent = Agent(name="Echo", model=Echo(), tools=[unused], db=db)
    accepted: dict[str, list[str]] = {}

    async def say_until_it_ends(run_id: str, who: str) -> None:
        for number in range(15):
            try:
                await agent.asteer(run_id, f"{who}{number}")
            except RunEnded:
                return
            accepted[run_id].append(f"{who}{number}")

    async def steer_one(start: str) -> None:
        run = await agent.arun(start, background=True)
        accepted[run.run_id] = []
        async with anyio.create_task_group() as group:
            for who in "ab":
                group.start_soon(say_until_it_ends, run.run_id, who)
        heard = str(await run.aresult(timeout=20)).split()
        assert heard[0] == start
        assert sorted(heard[1:]) == sorted(accepted[run.run_id])

    async with Worker(db), anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(steer_one, f"run{number}")
    assert one(conn, "select count(*) from pgrun.jobs where status = 'completed'") == 10


def unused() -> None:
    """Never called; with a tool the runs come here."""
