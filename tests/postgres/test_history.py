"""What agents remember: the runs of their session that came before, and nothing else."""

from typing import Any

import pytest
from pydantic import BaseModel
from support.database import Conn
from support.models import ScriptedModel
from support.tables import one
from support.until import until

from pgrun import Agent, ModelRefused, OpenAIResponses, PostgresDb, RunFailed, UsageError, Worker
from pgrun._agents_here import _registry
from pgrun.errors import AttemptError
from pgrun.models.base import ModelResponse
from pgrun.testing import ModelServer


def remembering(db: PostgresDb, *answers: str | ModelResponse | AttemptError, **options: Any) -> Agent[Any]:
    """An agent whose model is in this process, with a tool so that its runs come here."""
    model = ScriptedModel(*answers)
    return Agent(name="Remembers", model=model, tools=[unused], add_history_to_context=True, db=db, **options)


def unused() -> None:
    """Never called."""


def shown(agent: Agent[Any], number: int) -> list[tuple[str, str]]:
    """Role and text of what the model was shown at a call."""
    model = agent.definition.model
    assert isinstance(model, ScriptedModel)
    return [(message.role, message.content) for message in model.asked[number].messages]


async def say(agent: Agent[Any], text: Any, session_id: str | None = "s") -> Any:
    return await (await agent.arun(text, session_id=session_id, background=True)).aresult(timeout=10)


async def test_a_run_is_shown_what_was_said_in_its_session_before(db: PostgresDb) -> None:
    agent = remembering(db, "Hello Ada.", "Ada.", instructions="Be brief.")
    async with Worker(db):
        await say(agent, "I am Ada.")
        await say(agent, "Who am I?")
    assert shown(agent, 1) == [
        ("system", "Be brief."),
        ("user", "I am Ada."),
        ("assistant", "Hello Ada."),
        ("user", "Who am I?"),
    ]


async def test_only_the_last_runs_of_the_own_session_are_shown(db: PostgresDb) -> None:
    agent = remembering(db, *"abcdef", num_history_runs=2)
    async with Worker(db):
        for text in ("1", "2", "3"):
            await say(agent, text)
        await say(agent, "other", session_id="t")
        await say(agent, "alone", session_id=None)
        await say(agent, "4")
    assert shown(agent, 3) == [("user", "other")]
    assert shown(agent, 4) == [("user", "alone")]
    assert shown(agent, 5) == [("user", "2"), ("assistant", "b"), ("user", "3"), ("assistant", "c"), ("user", "4")]


async def test_runs_that_did_not_complete_are_forgotten(db: PostgresDb) -> None:
    agent = remembering(db, "a", ModelRefused("no", refusal="no"), "c")
    async with Worker(db):
        await say(agent, "1")
        with pytest.raises(RunFailed):
            await say(agent, "2")
        await say(agent, "3")
    assert shown(agent, 2) == [("user", "1"), ("assistant", "a"), ("user", "3")]


async def test_a_question_that_was_interrupted_is_remembered_and_one_that_was_rolled_back_is_not(
    db: PostgresDb,
) -> None:
    agent = remembering(db, "a", "b", "c", num_history_runs=9)
    await agent.arun("1", session_id="s", background=True)
    await agent.arun("2", session_id="s", multitask="interrupt", background=True)
    async with Worker(db):
        await say(agent, "3")
        await agent.arun("4", session_id="s", delay=60, background=True)
        run = await agent.arun("5", session_id="s", multitask="rollback", background=True)
        await run.aresult(timeout=10)
    assert shown(agent, 1) == [("user", "1"), ("user", "2"), ("assistant", "a"), ("user", "3")]
    assert [text for _, text in shown(agent, 2)] == ["1", "2", "a", "3", "b", "5"]


async def test_conversations_and_typed_answers_are_remembered_as_the_model_saw_them(db: PostgresDb) -> None:
    class Sum(BaseModel):
        total: int

    agent = remembering(db, '{"total": 3}', '{"total": 4}', output_schema=Sum)
    conversation = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 and 2"}]
    async with Worker(db):
        await say(agent, conversation)
        await say(agent, {"and": 1})
    assert shown(agent, 1) == [("user", "1 and 2"), ("assistant", '{"total": 3}'), ("user", '{"and": 1}')]


async def test_runs_that_wait_in_line_see_the_answers_before_them(db: PostgresDb) -> None:
    agent = remembering(db, *(f"answer {number}" for number in range(5)), num_history_runs=10)
    runs = [await agent.arun(f"{number}", session_id="s", background=True) for number in range(5)]
    async with Worker(db):
        await db.await_runs([run.run_id for run in runs], timeout=10)
    assert [role for role, _ in shown(agent, 4)] == ["user", "assistant"] * 4 + ["user"]
    assert [text for role, text in shown(agent, 4) if role == "assistant"] == [f"answer {n}" for n in range(4)]


async def test_the_wish_to_remember_travels_with_the_run(db: PostgresDb, conn: Conn, models: ModelServer) -> None:
    models.script("Hello Ada.", "Ada.")
    model = OpenAIResponses("gpt-5-mini", base_url=models.base_url, api_key=models.api_key)
    agent = Agent(name="Travels", model=model, add_history_to_context=True, db=db)
    for text in ("I am Ada.", "Who am I?"):
        await agent.arun(text, session_id="s", background=True)
    _registry.clear()  # as in a daemon, which has never heard of it
    async with Worker(db):
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'completed'") == 2)
    assert [(item["role"], item["content"]) for item in models.calls[1].body["input"]] == [
        ("user", "I am Ada."),
        ("assistant", "Hello Ada."),
        ("user", "Who am I?"),
    ]


def test_history_needs_a_database_and_a_number() -> None:
    with pytest.raises(UsageError, match="add_history_to_context needs a db"):
        Agent(model=ScriptedModel(), add_history_to_context=True)
    db = PostgresDb("postgresql://localhost/nothing")
    for number in (-1, 1.5, "3"):
        with pytest.raises(UsageError, match="num_history_runs="):
            Agent(model=ScriptedModel(), db=db, add_history_to_context=True, num_history_runs=number)  # type: ignore[arg-type]
