"""One attempt at one run, from the claimed row to a decision: decode → execute → decide. Recording it is the worker's.

An attempt touches neither the database nor the slots of its worker, so it needs no connection while the model thinks.
"""

import logging
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from pgrun.agent import registered_agents
from pgrun.db.verbs import Claimed, Ending
from pgrun.errors import AttemptError, ModelUnavailable, QuotaExceeded, UsageError
from pgrun.retry import RetryPolicy
from pgrun.run._storable import storable_text
from pgrun.run.base import RunMetrics
from pgrun.run.definition import AgentDefinition
from pgrun.run.loop import Turns
from pgrun.run.output import OutputSchema, known_type
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.worker")


@dataclass(frozen=True)
class Retry:
    """Make it due again in `delay` seconds; the attempt is used up."""

    delay: float
    error: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Release:
    """Give it back uncounted, due again in `delay` seconds; `error` tells people why it waits."""

    delay: float
    error: dict[str, Any]
    metrics: dict[str, Any]


Decision = Ending | Retry | Release


class Attempt:
    """One attempt at a claimed run."""

    def __init__(self, claimed: Claimed, settings: Settings) -> None:
        self._claimed = claimed
        self._settings = settings
        self._started = time.monotonic()
        self._turns: Turns | None = None
        self._policy = RetryPolicy()  # until the run's own is known

    @property
    def metrics(self) -> dict[str, Any]:
        """What the run has used until now, before and in this attempt."""
        here = (self._turns.metrics if self._turns else RunMetrics()) + RunMetrics(
            duration=time.monotonic() - self._started
        )
        total = _read_metrics(self._claimed) + here
        return total.model_dump(exclude_defaults=True)

    async def decide(self) -> Decision:
        """Carries it out and decides what follows; raises nothing but the cancellation of the caller."""
        try:
            turns, self._policy = _decode(self._claimed)
            self._turns = turns
            content = await turns.take()
        except _UnknownHere as error:
            return Release(self._settings.unknown_delay, _error(self._claimed, error), self.metrics)
        except QuotaExceeded as error:
            return Release(self._settings.quota_delay, _error(self._claimed, error), self.metrics)
        except Exception as error:
            return self._after(error)
        content_type = turns.output.name if turns.output else "str"
        return Ending(self._claimed, "completed", self.metrics, output=content, content_type=content_type)

    def _after(self, error: Exception) -> Decision:
        claimed = self._claimed
        if _may_retry(error) and claimed.attempt < claimed.max_attempts:
            retry_after = error.retry_after if isinstance(error, ModelUnavailable) else None
            delay = self._policy.delay(claimed.attempt, retry_after=retry_after)
            return Retry(delay, _error(claimed, error), self.metrics)
        return Ending(claimed, "error", self.metrics, error=_error(claimed, error))


def unforeseen(claimed: Claimed, error: Exception) -> Ending:
    """The end of a run of which even the decision could not be written: it must not be paid again and again."""
    return Ending(claimed, "error", claimed.metrics, error=_error(claimed, error))


class _UnknownHere(AttemptError):
    """This process does not know what the run is to execute; another one may."""


def _decode(claimed: Claimed) -> tuple[Turns, RetryPolicy]:
    definition = _definition(claimed)
    output = _schema(to_json(claimed.output_schema)) if claimed.output_schema is not None else None
    return Turns(definition.model, definition.messages(claimed.input), output), definition.retry


def _definition(claimed: Claimed) -> AgentDefinition:
    """The live agent's, with whatever only this process has, such as its key; else the one that travelled with the run."""
    agent = registered_agents().get(claimed.name)
    if agent is not None and claimed.definition in (None, agent.stored_definition):
        return agent.definition
    if claimed.definition is None:
        raise _UnknownHere(
            f'no worker here knows the agent or task "{claimed.name}": start one that imports it '
            "(pgrun worker --import your.module), or use the agent once from Python, which stores its definition"
        )
    try:
        return _stored_definition(to_json(claimed.definition))
    except UsageError as error:  # written by a newer pgrun, or by hand
        raise _UnknownHere(f'"{claimed.name}" cannot be executed by this worker: {error}') from error


@lru_cache(maxsize=256)
def _stored_definition(definition: bytes) -> AgentDefinition:
    return AgentDefinition.from_json(from_json(definition))


@lru_cache(maxsize=256)
def _schema(json_schema: bytes) -> OutputSchema[Any]:
    data = from_json(json_schema)
    return known_type(data) or OutputSchema.from_json(data)


def _may_retry(error: Exception) -> bool:
    """Whether another attempt may end better: the provider was unavailable, or something nobody foresaw went wrong."""
    return isinstance(error, ModelUnavailable) or not isinstance(error, AttemptError | UsageError)


def _read_metrics(claimed: Claimed) -> RunMetrics:
    try:
        return RunMetrics.model_validate(claimed.metrics)
    except ValidationError:
        _log.warning("%r: metrics in its row cannot be read and are counted anew: %r", claimed, claimed.metrics)
        return RunMetrics()


def _error(claimed: Claimed, error: Exception) -> dict[str, Any]:
    """The failure as it is stored, for people and for `RunFailed`."""
    if not isinstance(error, AttemptError | UsageError):
        _log.exception("%r raised", claimed, exc_info=error)
    kind = "UnknownName" if isinstance(error, _UnknownHere) else type(error).__name__
    details = error.details if isinstance(error, AttemptError) else {}
    message = storable_text(str(error)) or type(error).__name__
    return {"type": kind, "message": message, "attempt": claimed.attempt, **_storable(details)}


def _storable(details: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = from_json(to_json(details, fallback=repr, inf_nan_mode="null"))
    return {name: storable_text(value) if isinstance(value, str) else value for name, value in data.items()}
