"""One attempt, from the claimed row to a decision; it raises nothing, whatever stands in the row."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from pgrun import Agent, OpenAIResponses, Settings
from pgrun._ids import new_run_id
from pgrun.db.records import Claimed, Ending
from pgrun.run.output import OutputSchema
from pgrun.testing import ModelServer, Usage, quota_exceeded, rate_limited, refusal, reply, server_error
from pgrun.worker.attempt import Attempt
from pgrun.worker.decision import Release, Retry

SETTINGS = Settings(unknown_delay=7.0, quota_delay=70.0)
USED = Usage(10, 5)


class City(BaseModel):
    name: str


class Capital(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def is_known(cls, name: str) -> str:
        if name != "Tokyo":
            raise ValueError(f"{name} is no capital")
        return name


def definition(models: ModelServer, **parts: Any) -> dict[str, Any]:
    model = {"provider": "openai.responses", "id": "gpt-5-mini", "base_url": models.base_url}
    return {"model": model, "retry": {"base_delay": 2.0, "jitter": 0.0}, **parts}


def claimed(**columns: Any) -> Claimed:
    """As it comes from the database: JSON is text."""
    as_json = ("input", "definition", "output_schema", "metrics")
    columns = {name: json.dumps(value) if name in as_json else value for name, value in columns.items()}
    return Claimed(
        **{
            "run_id": new_run_id(),
            "kind": "agent",
            "name": "Travelled",
            "queue": "default",
            "session_id": None,
            "parent_run_id": None,
            "attempt": 1,
            "max_attempts": 3,
            "fence": 1,
            "priority": 0,
            "due_at": 0.0,
            "input": '"Tokyo?"',
            "definition": None,
            "output_schema": None,
            "metrics": "{}",
            "metadata": None,
            **columns,
        }
    )


def used(decision: Ending | Release) -> dict[str, Any]:
    assert decision.metrics is not None
    return decision.metrics


async def test_a_valid_answer_completes_the_run(models: ModelServer) -> None:
    models.script(reply({"name": "Tokyo"}, usage=USED))
    run = claimed(definition=definition(models), output_schema=OutputSchema.of(City).json_schema)
    decision = await Attempt(run, SETTINGS).decide()
    assert isinstance(decision, Ending)
    assert (decision.status, decision.output, decision.content_type) == ("completed", {"name": "Tokyo"}, "City")
    assert (decision.claimed, decision.error) == (run, None)
    assert used(decision)["total_tokens"] == 15
    assert used(decision)["duration"] > 0


async def test_plain_text_completes_a_run_without_a_schema(models: ModelServer) -> None:
    models.script("Yes\x00")
    decision = await Attempt(claimed(definition=definition(models)), SETTINGS).decide()
    assert isinstance(decision, Ending)
    assert (decision.output, decision.content_type) == ("Yes\ufffd", "str")


async def test_what_earlier_attempts_used_is_added(models: ModelServer) -> None:
    models.script(reply("Yes", usage=USED))
    before = {"input_tokens": 100, "total_tokens": 100, "duration": 50.0}
    decision = await Attempt(claimed(definition=definition(models), metrics=before), SETTINGS).decide()
    assert isinstance(decision, Ending)
    assert used(decision)["total_tokens"] == 115
    assert 50 < used(decision)["duration"] < 60


async def test_an_unavailable_model_is_tried_again_by_the_policy_of_the_run(models: ModelServer) -> None:
    models.script(server_error(), server_error(), rate_limited(retry_after=30))
    delays = []
    for number, limit in ((1, 3), (2, 3), (1, 3)):
        decision = await Attempt(
            claimed(definition=definition(models), attempt=number, max_attempts=limit), SETTINGS
        ).decide()
        assert isinstance(decision, Retry)
        assert decision.error["type"] == "ModelUnavailable"
        assert decision.error["attempt"] == number
        delays.append(decision.delay)
    assert delays == [2.0, 4.0, 30.0]


async def test_the_last_attempt_ends_the_run_in_error(models: ModelServer) -> None:
    models.script(server_error(503))
    decision = await Attempt(claimed(definition=definition(models), attempt=3), SETTINGS).decide()
    assert isinstance(decision, Ending)
    assert decision.status == "error"
    assert decision.error is not None
    assert (decision.error["type"], decision.error["status_code"], decision.error["attempt"]) == (
        "ModelUnavailable",
        503,
        3,
    )


async def test_what_is_permanent_ends_the_run_at_once(models: ModelServer) -> None:
    models.script(refusal("no\x00"))
    decision = await Attempt(claimed(definition=definition(models)), SETTINGS).decide()
    assert isinstance(decision, Ending)
    assert decision.status == "error"
    assert decision.error is not None
    assert (decision.error["type"], decision.error["refusal"]) == ("ModelRefused", "no\ufffd")


async def test_a_lack_of_credit_uses_up_no_attempt(models: ModelServer) -> None:
    models.script(quota_exceeded())
    decision = await Attempt(claimed(definition=definition(models), attempt=3), SETTINGS).decide()
    assert isinstance(decision, Release)
    assert decision.delay == 70.0
    assert decision.error["type"] == "QuotaExceeded"


async def test_what_was_used_before_the_credit_ran_out_is_counted(models: ModelServer) -> None:
    models.script(reply('{"name": 5}', usage=USED), quota_exceeded())
    schema = OutputSchema.of(City).json_schema
    decision = await Attempt(claimed(definition=definition(models), output_schema=schema), SETTINGS).decide()
    assert isinstance(decision, Release)
    assert used(decision)["total_tokens"] == 15


async def test_metrics_that_someone_wrote_by_hand_do_not_keep_a_run_from_its_end(
    models: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    models.script(reply("Rome", usage=USED))
    decision = await Attempt(
        claimed(definition=definition(models), metrics={"total_tokens": "many"}), SETTINGS
    ).decide()
    assert isinstance(decision, Ending)
    assert (decision.status, used(decision)["total_tokens"]) == ("completed", 15)
    assert "many" in caplog.text


async def test_a_name_that_nobody_here_knows_is_left_to_others() -> None:
    decision = await Attempt(claimed(name="Unheard of", attempt=3), SETTINGS).decide()
    assert isinstance(decision, Release)
    assert decision.delay == 7.0
    assert decision.error["type"] == "UnknownName"
    assert "pgrun worker --import your.module" in decision.error["message"]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"model": {"provider": "acme", "id": "x"}},
        {"model": {"provider": "openai.responses", "id": "m", "base_url": 5}},
        {"model": {"provider": "openai.responses", "id": "m", "an_option_of_tomorrow": 1}},
        {"model": {"provider": "openai.responses", "id": "m"}, "description": 5},
        {"model": {"provider": "openai.responses", "id": "m"}, "instructions": [5]},
        {"model": {"provider": "openai.responses", "id": "m"}, "retry": {"jitter": 7}},
        {"a_part_of_tomorrow": 1},
        [],
        "gpt-5-mini",
    ],
)
async def test_a_definition_that_this_worker_cannot_read_is_left_to_others(broken: Any) -> None:
    decision = await Attempt(claimed(definition=broken), SETTINGS).decide()
    assert isinstance(decision, Release)
    assert decision.error["type"] == "UnknownName"
    assert decision.error["message"].startswith('"Travelled" cannot be executed by this worker: ')


@pytest.mark.parametrize(
    "schema", [5, {"type": "what"}, {"type": "object", "additionalProperties": {"type": "string"}}]
)
async def test_a_schema_that_no_provider_takes_ends_the_run(models: ModelServer, schema: Any) -> None:
    decision = await Attempt(claimed(definition=definition(models), output_schema=schema), SETTINGS).decide()
    assert isinstance(decision, Ending)
    assert decision.error is not None
    assert (decision.status, decision.error["type"]) == ("error", "UsageError")
    assert models.calls == []


@pytest.mark.parametrize("reasoning", [5, "high"])
async def test_what_nobody_foresaw_is_logged_and_tried_again(
    models: ModelServer, reasoning: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken = definition(models)
    broken["model"]["reasoning"] = reasoning
    decision = await Attempt(claimed(definition=broken), SETTINGS).decide()
    assert isinstance(decision, Retry)
    assert (decision.delay, decision.error["type"]) == (2.0, "TypeError")
    assert "is not a mapping" in caplog.text


async def test_a_fault_before_the_policy_is_known_is_survived(
    models: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    decision = await Attempt(claimed(definition=definition(models), output_schema=schema), SETTINGS).decide()
    assert isinstance(decision, Retry)
    assert "recursion limit" in caplog.text


async def test_the_live_agent_is_used_where_the_run_was_made_with_it(models: ModelServer) -> None:
    model = OpenAIResponses(base_url=models.base_url, api_key="live-key")
    agent = Agent(name="Live", model=model, output_schema=Capital)
    assert agent.output_schema is not None
    models.script({"name": "Kyoto"}, {"name": "Tokyo"})
    run = claimed(name="Live", definition=agent.stored_definition, output_schema=agent.output_schema.json_schema)
    decision = await Attempt(run, SETTINGS).decide()
    assert isinstance(decision, Ending)
    assert decision.output == {"name": "Tokyo"}, "its own validators had a say"
    assert {call.headers["authorization"] for call in models.calls} == {"Bearer live-key"}


async def test_a_run_that_was_made_otherwise_keeps_its_own_definition(models: ModelServer) -> None:
    Agent(name="Live", model=OpenAIResponses(base_url=models.base_url, api_key="live-key"))
    await Attempt(claimed(name="Live", definition=definition(models, description="An older one.")), SETTINGS).decide()
    (call,) = models.calls
    assert call.body["input"][0]["content"] == "An older one."
    assert call.headers["authorization"] == "Bearer none"
