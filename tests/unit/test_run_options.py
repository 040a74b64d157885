"""What a call refuses before anything is stored or paid: options that cannot be, and input that cannot be stored."""

from typing import Any

import pytest
from pydantic import BaseModel

from pgrun import Agent, OpenAIResponses, PostgresDb, UsageError
from pgrun.testing import ModelServer

RUN_ID = "01900000-0000-7000-8000-000000000000"


class Tags(BaseModel):
    tags: dict[str, str]


@pytest.fixture(params=["with a database", "without"])
def agent(request: pytest.FixtureRequest, models: ModelServer) -> Agent[str]:
    """An agent whose calls would be seen by the model server, or fail on a database that does not exist."""
    db = (
        PostgresDb("postgresql://nowhere.invalid/app", worker="external")
        if request.param == "with a database"
        else None
    )
    options: dict[str, Any] = {"db": db} if db else {}
    return Agent(name="Careful", model=OpenAIResponses(base_url=models.base_url, api_key="k"), **options)


async def refusal(agent: Agent[str], models: ModelServer, data: Any = "hi", **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        await agent.arun(data, **options)
    assert models.calls == []
    str(caught.value).encode()  # it can be shown
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"user": "x"}, "runs have no option user=; there are session_id, run_id, queue, priority, delay"),
        ({"user": "x", "retries": 3}, "runs have no option retries=, user=;"),
        ({"delay": -1}, "delay=-1: seconds from now, 0 or more"),
        ({"delay": float("nan")}, "delay=nan: seconds"),
        ({"delay": float("inf")}, "delay=inf: seconds"),
        ({"delay": 4e9}, "at most a century"),
        ({"delay": "5"}, "delay='5': seconds"),
        ({"priority": 32768}, "priority=32768: a whole number from -32768 to 32767"),
        ({"priority": -32769}, "priority=-32769: a whole number"),
        ({"priority": 1.5}, "priority=1.5: a whole number"),
        ({"priority": "high"}, "priority='high': a whole number"),
        ({"max_attempts": 0}, "max_attempts=0: a whole number from 1 to 32767"),
        ({"max_attempts": 32768}, "max_attempts=32768: a whole number"),
        ({"max_attempts": 2.0}, "max_attempts=2.0: a whole number"),
        ({"session_id": ""}, "session_id='': a text that is not empty"),
        ({"session_id": 7}, "session_id=7: a text"),
        ({"session_id": "a\x00"}, "session_id: contains NUL"),
        ({"session_id": "a\ud800"}, "session_id: contains the lone surrogate '\\ud800'"),
        ({"queue": ""}, "queue='': a text that is not empty"),
        ({"queue": "a\x00"}, "queue: contains NUL"),
        ({"metadata": ["a"]}, "metadata=['a']: a dict"),
        ({"metadata": {"team": {"name": "a\x00"}}}, "metadata.team.name: contains NUL"),
        ({"metadata": {"a": "\udfff"}}, "metadata.a: contains the lone surrogate"),
        ({"metadata": {"a": object()}}, "metadata.a: is of type object, which has no JSON form"),
        ({"run_id": "rome"}, "run_id 'rome' is not a UUID"),
        ({"run_id": ""}, "run_id '' is not a UUID"),
        ({"output_schema": Tags}, "Tags.tags: dict[str, ...] has no fixed keys"),
    ],
)
async def test_an_option_that_cannot_be_is_refused_by_name(
    agent: Agent[str], models: ModelServer, options: dict[str, Any], says: str
) -> None:
    assert says in await refusal(agent, models, **options)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a\x00b", r"input: contains NUL (\x00), which PostgreSQL cannot store"),
        ("\ud83d", "input: contains the lone surrogate"),
        ({"customer": {"name": "x\x00"}}, "input.customer.name: contains NUL"),
        ([1, {"deep": object()}], "input[1].deep: is of type object, which has no JSON form"),
        ({"x": float("nan")}, "input.x: is nan, which is not a JSON number"),
        ([{"role": "user", "content": "a\x00"}], "input[0].content: contains NUL"),
        (lambda: 1, "input: is of type function"),
    ],
)
async def test_input_that_cannot_be_stored_is_refused_with_its_path(
    agent: Agent[str], models: ModelServer, data: Any, says: str
) -> None:
    assert says in await refusal(agent, models, data)


async def test_a_background_run_needs_a_database(models: ModelServer) -> None:
    agent = Agent(name="Homeless", model=OpenAIResponses(base_url=models.base_url, api_key="k"))
    says = await refusal(agent, models, background=True)
    assert says == 'Agent "Homeless" has no db: background runs need one, for example PostgresDb("embedded:")'
    for call in (agent.aget_run_output, agent.acancel_run):
        with pytest.raises(UsageError, match='Agent "Homeless" has no db, so its runs are not stored'):
            await call(RUN_ID)


async def test_a_run_is_asked_for_by_its_uuid() -> None:
    db = PostgresDb("postgresql://nowhere.invalid/app", worker="external")
    with pytest.raises(UsageError, match="run_id 'rome' is not a UUID"):
        await db.await_runs(["rome"])


async def test_options_that_can_be_are_taken(models: ModelServer) -> None:
    agent = Agent(name="Open", model=OpenAIResponses(base_url=models.base_url, api_key="k"))
    given: Any = {
        "session_id": "s",
        "queue": "q",
        "priority": -32768,
        "delay": 0,
        "max_attempts": 1,
        "metadata": {"n": (1,)},
    }
    run = await agent.arun("hi", run_id=RUN_ID.upper(), **given)
    assert (run.run_id, run.session_id, run.metadata) == (RUN_ID, "s", {"n": [1]})


async def test_none_stands_for_the_default(models: ModelServer) -> None:
    agent = Agent(model=OpenAIResponses(base_url=models.base_url, api_key="k"))
    run = await agent.arun(
        "hi", session_id=None, run_id=None, queue=None, priority=None, delay=None, max_attempts=None, metadata=None
    )
    assert run.session_id
    assert run.run_id
    assert run.metadata == {}
