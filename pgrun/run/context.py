"""`RunContext`: what a tool may know about the run that calls it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The run that calls a tool.

    A parameter of a tool that is annotated with it is filled in by pgrun, and no model is told of it.

    Attributes:
        run_id: Its id.
        session_id: The conversation it belongs to.
        agent_name: The agent that it executes.
        attempt: Counted from 1.
        metadata: As it was submitted with: the place for what the tools have to know and the model must not choose.
        idempotency_key: Of this call, for services that execute a request with a known key only once: the same in every
            attempt of the run for the n-th call of this tool with these arguments, and when a call that failed is made again. At
            most 180 characters.
    """

    run_id: str
    session_id: str | None
    agent_name: str
    attempt: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str = ""
