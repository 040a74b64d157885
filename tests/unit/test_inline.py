"""A foreground run without a database: the same turns and retries, in the caller's own task."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
from pydantic import BaseModel
from support.models import ScriptedModel, calling

from pgrun import (
    Agent,
    ModelRejected,
    ModelUnavailable,
    OpenAIResponses,
    OutputInvalid,
    QuotaExceeded,
    RetryPolicy,
    RunContext,
    RunFailed,
    RunStatus,
)
from pgrun.testing import (
    ModelServer,
    Usage,
    hang,
    http_error,
    invalid_json,
    quota_exceeded,
    rate_limited,
    reply,
    server_error,
)

TOKYO = {"name": "Tokyo", "people": 37}


class City(BaseModel):
    name: str
    people: int


def agent_at(server: ModelServer, **options: Any) -> Agent[City]:
    return Agent(
        name="Cities",
        model=OpenAIResponses(base_url=server.base_url, api_key="k"),
        output_schema=City,
        retry=RetryPolicy(max_attempts=3, base_delay=0.01, jitter=0.0),
        **options,
    )


async def test_a_run_is_returned_completed_with_its_typed_content(models: ModelServer) -> None:
    models.script(reply(TOKYO, usage=Usage(10, 5)))
    started = datetime.now(UTC)
    run = await agent_at(models).arun({"city": "Tokyo"}, metadata={"team": "a"})
    assert run.content == City(name="Tokyo", people=37)
    assert (run.status, run.content_type, run.agent_name) == (RunStatus.completed, "City", "Cities")
    assert (run.input, run.metadata, run.attempt, run.error) == ({"city": "Tokyo"}, {"team": "a"}, 1, None)
    assert UUID(run.run_id).version == 7
    assert UUID(run.session_id)
    assert run.created_at is not None
    assert run.started_at is not None
    assert run.finished_at is not None
    assert started <= run.created_at <= run.started_at <= run.finished_at <= datetime.now(UTC)
    assert run.metrics.total_tokens == 15
    assert run.metrics.duration == (run.finished_at - run.started_at).total_seconds()
    assert await run.aresult() == run.content


async def test_a_type_for_one_run_and_no_type_at_all(models: ModelServer) -> None:
    models.script({"value": [1, 2]}, "plain")
    assert (await agent_at(models).arun("?", output_schema=list[int])).content == [1, 2]
    plain = Agent(model=OpenAIResponses(base_url=models.base_url, api_key="k"))
    run = await plain.arun("?")
    assert (run.content, run.content_type) == ("plain", "str")


async def test_a_failed_call_is_repeated_as_the_policy_says(models: ModelServer) -> None:
    models.script(server_error(), rate_limited(retry_after=0.02), TOKYO)
    run = await agent_at(models).arun("?")
    assert (run.status, run.attempt) == (RunStatus.completed, 3)
    assert [call.status for call in models.calls] == [500, 429, 200]
    first, second, third = models.calls
    assert second.received_at - (first.answered_at or 0) >= 0.01
    assert third.received_at - (second.answered_at or 0) >= 0.02


async def test_after_the_last_attempt_the_run_has_failed_and_says_why(models: ModelServer) -> None:
    models.always(server_error(503))
    with pytest.raises(RunFailed, match="failed in attempt 3: ModelUnavailable: HTTP 503") as caught:
        await agent_at(models).arun("?")
    assert len(models.calls) == 3
    assert isinstance(caught.value.__cause__, ModelUnavailable)
    assert caught.value.error_type == "ModelUnavailable"
    assert caught.value.details["status_code"] == 503
    run = caught.value.run
    assert (run.run_id, run.status, run.attempt) == (caught.value.run_id, RunStatus.error, 3)
    assert run.finished_at is not None


async def test_the_number_of_attempts_can_be_said_for_one_run(models: ModelServer) -> None:
    models.always(server_error())
    with pytest.raises(RunFailed, match="in attempt 1"):
        await agent_at(models).arun("?", max_attempts=1)
    assert len(models.calls) == 1


@pytest.mark.parametrize(
    ("answer", "cause"), [(quota_exceeded(), QuotaExceeded), (http_error(400, code="bad"), ModelRejected)]
)
async def test_what_no_repetition_can_help_is_not_repeated(models: ModelServer, answer: Any, cause: type) -> None:
    models.always(answer)
    with pytest.raises(RunFailed) as caught:
        await agent_at(models).arun("?")
    assert type(caught.value.__cause__) is cause
    assert len(models.calls) == 1


async def test_an_answer_that_stays_invalid_is_kept_with_its_usage(models: ModelServer) -> None:
    models.always(reply("Tokyo is big.", usage=Usage(10, 5)))
    with pytest.raises(RunFailed) as caught:
        await agent_at(models).arun("?")
    assert isinstance(caught.value.__cause__, OutputInvalid)
    assert caught.value.__cause__.details["raw"] == "Tokyo is big."
    assert caught.value.run.metrics.total_tokens == 45
    assert len(models.calls) == 3


async def test_a_repeated_attempt_goes_on_where_the_conversation_was(models: ModelServer) -> None:
    models.script(invalid_json("no json"), server_error(), TOKYO)
    run = await agent_at(models).arun("?")
    assert run.content == City(name="Tokyo", people=37)
    inputs = [call.body["input"] for call in models.calls]
    assert inputs[1] == inputs[2]
    assert inputs[2][1] == {"role": "assistant", "content": "no json"}


async def test_it_starts_after_its_delay(models: ModelServer) -> None:
    models.script(TOKYO)
    run = await agent_at(models).arun("?", delay=0.05)
    assert run.created_at is not None
    assert run.started_at is not None
    assert run.started_at - run.created_at >= timedelta(seconds=0.04)
    assert run.metrics.duration < 10


async def test_cancelling_the_call_closes_the_request_to_the_model(models: ModelServer) -> None:
    models.script(hang())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent_at(models).arun, "?")
        await models.await_for_calls(1)
        tasks.cancel_scope.cancel()
    await models.await_for_calls(1, outcome="aborted")


def test_it_works_without_an_event_loop(models: ModelServer) -> None:
    models.script(TOKYO)
    run = agent_at(models).run("?")
    assert run.result() == City(name="Tokyo", people=37)


async def test_an_attempt_that_is_repeated_goes_on_after_its_calls_and_tells_tools_its_number() -> None:
    attempts: list[int] = []

    def look(run: RunContext) -> str:
        attempts.append(run.attempt)
        return "found"

    call = calling(("look", "{}"))
    model = ScriptedModel(call, ModelUnavailable("later"), call, "Tokyo.")
    agent = Agent(name="Cities", model=model, tools=[look], retry=RetryPolicy(base_delay=0.001))
    run = await agent.arun("?")
    assert (run.content, attempts, run.attempt) == ("Tokyo.", [1, 2], 2)
    assert [each.result for each in run.tools] == ["found", "found"]
