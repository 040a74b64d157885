"""What type checkers know of the public API: mypy checks this file, nothing in it is executed but the last test."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, TypedDict, assert_type

from pydantic import BaseModel

from pgrun import (
    Agent,
    OpenAIChat,
    OpenAIResponses,
    PostgresDb,
    Progress,
    RetryPolicy,
    Run,
    RunContext,
    RunEvent,
    RunMetrics,
    RunOutput,
    RunRequirement,
    RunStatus,
    Schedule,
    Settings,
    SyncTaskContext,
    Task,
    TaskContext,
    Tool,
    ToolExecution,
    Worker,
    tool,
)
from pgrun.run.base import RunFailure


class City(BaseModel):
    name: str


@dataclass
class Fact:
    text: str


class Row(TypedDict):
    n: int


async def a_typed_agent(db: PostgresDb) -> None:
    agent = Agent(name="Cities", model=OpenAIResponses(id="gpt-5-mini"), output_schema=City, db=db)
    assert_type(agent, Agent[City])
    run = await agent.arun("Tokyo?", background=True, session_id="s", delay=5, priority=-1, metadata={"a": 1})
    assert_type(run, RunOutput[City])
    assert_type(run.content, City | None)
    assert_type(await run.aresult(timeout=5), City)
    assert_type(run.result(), City)
    assert_type(agent.run("Tokyo?"), RunOutput[City])
    assert_type(agent.run("Tokyo?").result(timeout=5), City)


async def an_agent_of_plain_text() -> None:
    agent = Agent(model="gpt-5-mini", instructions=["Be brief."], retry=RetryPolicy(max_attempts=2))
    assert_type(agent, Agent[str])
    assert_type(await agent.arun("?"), RunOutput[str])
    assert_type(await (await agent.arun("?", background=True)).aresult(), str)
    assert_type(agent.run("?").result(), str)
    assert_type(Agent(model="gpt-5-mini", output_schema=None), Agent[str])


async def a_model_of_any_compatible_server() -> None:
    model = OpenAIChat("llama", base_url="http://localhost:11434/v1", structured_output="prompt", stop=["END"])
    agent = Agent(model=model, output_schema=City)
    assert_type(agent, Agent[City])
    assert_type(await (await agent.arun("Tokyo?", background=True)).aresult(), City)
    assert_type(OpenAIChat.from_definition(model.definition()), OpenAIChat)
    assert_type(OpenAIResponses.from_definition({}), OpenAIResponses)
    OpenAIChat("llama", structured_output="yaml")  # type: ignore[arg-type]
    OpenAIChat("llama", max_output_tokens=5)  # type: ignore[call-arg]


async def tools_are_still_the_functions_they_were() -> None:
    @tool
    def weather(city: str, days: int = 1) -> str:
        return city

    @tool(repeat="pure", timeout=5)
    async def look(city: str, run: RunContext) -> bytes:
        return b""

    def forecast(city: str) -> str:
        return city

    assert_type(weather("Rome", days=2), str)
    checked: Tool[..., str] = weather
    agent = Agent(model="gpt-5-mini", tools=[weather, look, forecast], tool_choice="look", output_schema=City)
    assert_type(agent, Agent[City])
    assert_type((await agent.arun("?")).tools, list[ToolExecution])
    assert checked


async def runs_that_wait_for_people(agent: Agent[City], run: RunOutput[City]) -> None:
    @tool(requires_user_input=True, user_input_fields=["street"])
    def ship(order: int, street: str) -> str:
        return street

    assert_type(ship(7, "Elm"), str)
    assert_type(run.active_requirements, list[RunRequirement])
    assert_type(run.is_paused, bool)
    assert_type(await agent.acontinue_run(run), RunOutput[City])
    assert_type(agent.continue_run(run, background=True), RunOutput[City])
    assert_type(await agent.acontinue_run(run_id="", requirements=run.requirements), RunOutput[Any])
    assert_type(agent.continue_run(run_id="", output_schema=Fact), RunOutput[Fact])


async def a_type_for_one_run(agent: Agent[str], cities: Agent[City]) -> None:
    assert_type(await agent.arun("?", output_schema=City), RunOutput[City])
    assert_type(await cities.arun("?", output_schema=list[City]), RunOutput[list[City]])
    assert_type(await (await cities.arun("?", output_schema=Fact, background=True)).aresult(), Fact)
    assert_type(agent.run("?", output_schema=Row), RunOutput[Row])
    assert_type(agent.run("?", output_schema=int).result(), int)


async def a_schema_that_type_checkers_cannot_see(agent: Agent[str]) -> None:
    assert_type(Agent(model="gpt-5-mini", output_schema={"type": "string"}), Agent[Any])
    assert_type(await agent.arun("?", output_schema={"type": "string"}), RunOutput[Any])
    assert_type(agent.run("?", output_schema=City | None), RunOutput[Any])


async def runs_that_are_read_again(agent: Agent[City], run: RunOutput[City]) -> None:
    assert_type(await agent.aget_run_output(run.run_id), RunOutput[Any] | None)
    assert_type(await agent.aget_run_output(run_id=run.run_id, session_id=run.session_id), RunOutput[Any] | None)
    assert_type(await agent.aget_run_output(run.run_id, output_schema=City), RunOutput[City] | None)
    assert_type(agent.get_run_output(run.run_id), RunOutput[Any] | None)
    assert_type(agent.get_run_output(run.run_id, output_schema=City), RunOutput[City] | None)
    assert_type(await agent.acancel_run(run.run_id), bool)
    assert_type(agent.cancel_run(run.run_id), bool)


async def many_runs(db: PostgresDb, runs: Sequence[RunOutput[City]]) -> None:
    run_ids = [run.run_id for run in runs]
    assert_type(await db.await_runs(run_ids, timeout=5, mode="any"), list[RunOutput[Any]])
    assert_type(await db.aprune(3600, status="error", queue="mail"), int)
    assert_type(db.prune(7 * 86_400.0), int)


def the_parts_of_a_run(run: RunOutput[City]) -> None:
    assert_type(run.run_id, str)
    assert_type(run.session_id, str | None)
    assert_type(run.status, RunStatus)
    assert_type(run.status == RunStatus.pending, bool)
    assert_type(run.error, RunFailure | None)
    assert_type(run.metrics, RunMetrics)
    assert_type(run.metrics.cost_usd, float | None)
    assert_type(run.metadata, dict[str, Any])


async def schedules(db: PostgresDb, agent: Agent[City], task: Task[[str], int]) -> None:
    db.declare_schedule(task, {"text": "a"}, cron="0 9 * * *", timezone="Europe/Berlin", missed="skip")
    assert_type(await db.aschedule(agent, "What is new?", every=timedelta(hours=1), user_id="ada"), str)
    assert_type(db.schedule("known elsewhere", {"a": 1}, at=datetime(2030, 1, 1, tzinfo=UTC)), str)
    assert_type(await db.aschedules(), list[Schedule])
    assert_type(db.unschedule("a"), bool)


async def a_worker_in_this_process() -> None:
    async with PostgresDb(settings=Settings(lease=5)) as db, Worker(db, queues=["default"], concurrency=5) as worker:
        assert_type(db, PostgresDb)
        assert_type(worker, Worker)
        assert_type(worker.running, int)


async def tasks_of_async_and_plain_functions(db: PostgresDb) -> None:
    @db.task
    async def find(name: str, *, size: int = 0) -> City:
        return City(name=name)

    @db.task
    def count(text: str) -> int:
        return len(text)

    assert_type(await find.asubmit("Tokyo", size=1), Run[City])
    assert_type(await (await find.asubmit("Tokyo")).aresult(timeout=5), City)
    assert_type(find.submit("Tokyo").result(), City)
    assert_type(await count.asubmit("Tokyo"), Run[int])
    assert_type(count.submit(text="Tokyo").result(timeout=5), int)
    assert_type(await count.asubmit_many([{"text": "Tokyo"}]), list[Run[int]])
    assert_type(count.submit_many([{"text": "Tokyo"}]), list[Run[int]])
    assert_type(await count.options(delay=5, priority=-1, queue="mail").asubmit("Tokyo"), Run[int])
    assert_type((await count.asubmit("Tokyo")).run_id, str)
    keyed = count.options(key="7", key_scope="ever", on_duplicate="keep", tags=["a"], expires=60, conn=object())
    assert_type((await keyed.asubmit("Tokyo")).duplicate, bool)
    assert_type(await count.asubmit_many([{"text": "Tokyo"}], keys=["7"]), list[Run[int]])
    assert_type(count.submit_many([{"text": "Tokyo"}], keys=["7"]), list[Run[int]])
    assert_type(db.task(max_attempts=2, timeout=5)(find).name, str)
    count.options(on_duplicate="both")  # type: ignore[arg-type]
    count.options(due_at="tomorrow")  # type: ignore[arg-type]
    await find.asubmit(7)  # type: ignore[arg-type]
    await find.asubmit("Tokyo", colour="red")  # type: ignore[call-arg]
    await count.asubmit()  # type: ignore[call-arg]
    count.options(colour="red")  # type: ignore[call-arg]
    count.options(delay="5")  # type: ignore[arg-type]


async def tasks_that_ask_for_their_context(db: PostgresDb) -> None:
    async def look_up(name: str, *, size: int = 0) -> City:
        return City(name=name)

    @db.task
    async def find(ctx: TaskContext, name: str) -> City:
        assert_type(await ctx.step("look up", look_up, name, size=1), City)
        assert_type(await ctx.step("count", len, name), int)
        assert_type(await ctx.step("again", lambda: look_up(name)), City)
        assert_type(ctx.metadata, Mapping[str, Any])
        await ctx.step("look up", look_up, 7)  # type: ignore[call-overload]
        await ctx.sleep(3600)
        ctx.progress((1, 2), "half")
        return await ctx.step("look up", look_up, name)

    @db.task(timeout=30, max_attempts=2, middleware=[around])
    def count(ctx: SyncTaskContext, text: str) -> int:
        assert_type(ctx.step("count", len, text), int)
        assert_type(ctx.cancelled, bool)
        return ctx.step("count", len, text)

    assert_type(await find.asubmit("Tokyo"), Run[City])
    await find.asubmit()  # type: ignore[call-arg]
    assert_type(await count.asubmit(text="Tokyo"), Run[int])
    assert_type(await (await count.asubmit("Tokyo")).aprogress(), Progress | None)
    assert_type(await (await count.asubmit("Tokyo")).acancel(), bool)
    await count.asubmit(7)  # type: ignore[arg-type]
    db.middleware(around)
    db.middleware(look_up)  # type: ignore[type-var]
    RetryPolicy(errors={ValueError: None, KeyError: RetryPolicy(base_delay=5)})


async def around(ctx: TaskContext, call_next: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return await call_next()


async def runs_that_are_awaited_together(db: PostgresDb, tasks: list[Run[int]], asked: list[RunOutput[City]]) -> None:
    assert_type(await db.await_runs(tasks), list[RunOutput[int]])
    assert_type(await db.await_runs(asked, mode="any"), list[RunOutput[City]])
    assert_type(await db.await_runs([tasks[0], asked[0].run_id]), list[RunOutput[Any]])
    assert_type(db.wait_runs(tasks, timeout=5), list[RunOutput[int]])
    async for run in db.as_completed(tasks):
        assert_type(run, RunOutput[int])
    for found in db.as_completed(asked, timeout=5):
        assert_type(found.content, City | None)
    assert_type(await tasks[0].aresult(5, cancel_on_abandon=True), int)
    assert_type(asked[0].result(cancel_on_abandon=True), City)
    assert_type(await db.aretry_runs(error_type="KeyError", since=3600, limit=10), int)
    assert_type(db.retry_runs(queue="mail"), int)


async def streams(agent: Agent[City], task: Task[[], int]) -> None:
    async for event in agent.arun("?", stream=True):
        assert_type(event, RunEvent)
    run = await agent.arun("?", stream=True, background=True)
    assert_type(run, RunOutput[City])
    assert_type(await agent.arun("?", stream=True, background=True, output_schema=Fact), RunOutput[Fact])
    async for event in run.aevents(after=3):
        assert_type(event.content, Any)
    for event in agent.run("?", stream=True):
        assert_type(event.text, str)
    assert_type(agent.run("?", stream=True, background=True), RunOutput[City])
    assert_type(next(agent.events(run.run_id)), RunEvent)
    assert_type(next((await task.asubmit()).events(after=1)), RunEvent)


async def tasks_with_options(db: PostgresDb) -> None:
    @db.task(name="cities.find", queue="mail", retry=RetryPolicy(max_attempts=2))
    async def find(name: str) -> City:
        return City(name=name)

    @db.task()
    def nothing() -> None: ...

    assert_type(await find.asubmit("Tokyo"), Run[City])
    assert_type(nothing, Task[[], None])
    assert_type(await nothing.asubmit(), Run[None])
    db.task(colour="red")  # type: ignore[call-overload]


async def what_type_checkers_refuse(agent: Agent[City], db: PostgresDb) -> None:
    await agent.arun("?", stream=True)  # type: ignore[misc]
    await agent.arun("?", delay="5")  # type: ignore[call-overload]
    await agent.arun("?", True)  # type: ignore[call-overload]
    Agent(model="gpt-5-mini", warmth=1)  # type: ignore[call-overload]
    Agent("Cities", model="gpt-5-mini")  # type: ignore[call-overload]
    PostgresDb("embedded:", worker="sometimes")  # type: ignore[arg-type]
    await db.await_runs(["r"], mode="some")  # type: ignore[call-overload]


def test_type_checkers_are_told_that_the_package_has_types() -> None:
    assert files("pgrun").joinpath("py.typed").is_file()
