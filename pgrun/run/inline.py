"""A foreground run without a database: the same turns and the same retries, in the caller's own task, leaving no trace."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from pgrun.errors import AttemptError, ModelUnavailable, UsageError
from pgrun.retry import RetryPolicy
from pgrun.run._toolset import Toolset
from pgrun.run.base import RunFailure, RunOutput, RunStatus, result_of
from pgrun.run.context import RunContext
from pgrun.run.definition import AgentDefinition
from pgrun.run.execution import Execution
from pgrun.run.journal import Journal
from pgrun.run.options import Choices
from pgrun.run.output import OutputSchema
from pgrun.run.state import beginning, changed
from pgrun.run.stream import Stream


def check_nobody_is_waited_for(name: str, toolset: Toolset) -> None:
    """Raises `UsageError` if a tool has to wait for a person: a run that nobody stores could not."""
    if waiting := [each.name for each in toolset.tools if each.waits_for]:
        raise UsageError(
            f'Agent "{name}" has no db, where a run is kept while it waits for a person, as {", ".join(waiting)} does; '
            'give it one, for example PostgresDb("embedded:")'
        )


async def execute_here(
    name: str,
    definition: AgentDefinition,
    schema: OutputSchema[Any] | None,
    data: Any,
    choices: Choices,
    stream: Stream | None = None,
) -> RunOutput[Any]:
    """Executes a run at once and returns it completed.

    Raises:
        RunFailed: Its last attempt failed; the cause says how.
    """
    run: RunOutput[Any] = RunOutput(
        run_id=choices.run_id,
        session_id=choices.session_id,
        agent_name=name,
        status=RunStatus.running,
        content_type=schema.name if schema else "str",
        input=data,
        created_at=datetime.now(UTC),
        metadata=choices.metadata,
    )
    await anyio.sleep(choices.delay)
    run.started_at = datetime.now(UTC)
    given = choices.context or {}
    context = RunContext(
        run_id=run.run_id,
        session_id=run.session_id,
        agent_name=name,
        attempt=1,
        metadata=choices.metadata,
        user_id=given.get("user_id"),
        dependencies=given.get("dependencies", {}),
    )
    journal = Journal()
    journal.state = changed({}, beginning(definition.session_state or {}, given.get("session_state", {}), {}))
    execution = Execution(definition, schema, data, context, journal, media=given.get("media", ()), stream=stream)
    content = None
    try:
        content = await _with_retries(run, execution, definition.retry, choices.max_attempts)
        run.status, run.content = RunStatus.completed, schema.load(content) if schema else content
    except AttemptError as error:
        run.status = RunStatus.error
        run.error = _failure(error)
    run.finished_at = datetime.now(UTC)
    run.tools = execution.turns.calls.executions
    run.metrics = execution.metrics
    run.metrics.duration = (run.finished_at - run.started_at).total_seconds()
    execution.turns.calls.stream.tell(run.status.value, **_end(run, content))
    result_of(run)
    return run


async def _with_retries(run: RunOutput[Any], execution: Execution, policy: RetryPolicy, max_attempts: int) -> Any:
    calls = execution.turns.calls
    for run.attempt in range(1, max_attempts + 1):
        calls.context = replace(calls.context, attempt=run.attempt)
        calls.stream.tell("started", attempt=run.attempt, worker_id=None)
        try:
            return await execution.take()
        except ModelUnavailable as error:
            if run.attempt == max_attempts:
                raise
            delay = policy.delay(run.attempt, retry_after=error.retry_after)
            due_at = (datetime.now(UTC) + timedelta(seconds=delay)).isoformat()
            calls.stream.tell("retried", error=_failure(error).model_dump(), due_at=due_at)
            await anyio.sleep(delay)
    raise AssertionError("unreachable: max_attempts is at least 1")


def _failure(error: AttemptError) -> RunFailure:
    return RunFailure(type=type(error).__name__, message=str(error), **error.details)


def _end(run: RunOutput[Any], content: Any) -> dict[str, Any]:
    metrics = run.metrics.model_dump(exclude_defaults=True)
    if run.error is not None:
        return {"error": run.error.model_dump(), "metrics": metrics}
    return {"output": content, "content_type": run.content_type, "metrics": metrics}
