"""Agents as tools: a run asks another agent, and the question becomes a run of its own, a child.

What a child needs of the database is the worker's; without one the other agent answers here, in the caller's task.
"""

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import to_json

from pgrun.errors import RunCancelled, RunFailed
from pgrun.run.base import RunOutput
from pgrun.run.metrics import RunMetrics
from pgrun.run.tools import Tool

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class Askable(Protocol):
    """An agent."""

    name: str

    def arun(self, input: Any) -> Awaitable[RunOutput[Any]]:
        """Asks it."""


class AgentTool(Tool[[str], Any]):
    """A tool that asks an agent; made by ``agent.as_tool()``, or by giving an agent where tools are expected.

    Args:
        agent: Whom it asks.
        name: By which the model calls it. Default: the agent's, with ``_`` for what names of tools may not have.
        description: What the model is told. Default: the agent's description.
    """

    def __init__(self, agent: Askable, *, name: str | None = None, description: str | None = None) -> None:
        async def ask(request: str) -> Any:
            """Asks another agent.

            Args:
                request: What to do or to find out, with all that has to be known for it: nothing else is passed on.
            """
            return (await agent.arun(request)).content

        own_name = _NOT_IN_NAMES.sub("_", agent.name).strip("_")[:64]
        super().__init__(ask, name=name or own_name, description=description, repeat="idempotent")
        self.agent = agent

    def __repr__(self) -> str:
        return f"<AgentTool {self.name}>"


@dataclass(frozen=True)
class Answered:
    """What came of a child: what the model is shown, as `result` or as `error`, and what it has used with its own children."""

    result: str | None
    error: str | None
    metrics: RunMetrics


class ChildrenOpen(Exception):
    """Nothing can be done before the children of the run have ended."""


class Children:
    """The children of one run; these are answered here, and leave no trace."""

    async def ask(self, tool: AgentTool, request: str, key: str) -> Answered | None:
        """What came of a question; None if that is not known yet, for which nobody needs to wait.

        Args:
            tool: Whom to ask.
            request: What.
            key: Of the call: the same question in every attempt of the run.
        """
        try:
            run = await tool.agent.arun(request)
        except (RunFailed, RunCancelled) as error:
            return Answered(None, f"{tool.agent.name} gave no answer: {error}", error.run.metrics.with_children())
        return Answered(shown(run.content), None, run.metrics.with_children())


def shown(content: Any) -> str:
    """The answer of a child as its parent's model sees it: a text as it is, anything else as JSON."""
    return content if isinstance(content, str) else to_json(content, fallback=str).decode()
