"""`Toolset`: the tools of one agent, and how they may be used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pgrun.errors import UsageError
from pgrun.models.base import TOOL_CHOICES, ToolSpec
from pgrun.run.tools import Tool, as_tool

MAX_TURNS = 30
"""Answers of the model in one run, by default: more than a person would wait for, less than a loop without end costs."""


@dataclass(frozen=True)
class Toolset:
    """The tools of an agent.

    Attributes:
        tools: Each with a name of its own.
        call_limit: How many calls are executed in one run; None for as many as the model wants.
        choice: As `ModelRequest.tool_choice`, until a tool has been called.
        max_turns: After so many answers of the model without an end the run fails.
    """

    tools: tuple[Tool[..., Any], ...] = ()
    call_limit: int | None = None
    choice: str | None = None
    max_turns: int = MAX_TURNS

    def find(self, name: str) -> Tool[..., Any] | None:
        """The tool of that name."""
        return next((each for each in self.tools if each.name == name), None)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model is told about them."""
        return tuple(each.spec for each in self.tools)

    @property
    def names(self) -> str:
        """For people and models."""
        return ", ".join(each.name for each in self.tools) or "none"


def toolset_of(
    tools: Iterable[object] | None,
    *,
    call_limit: int | None,
    choice: str | Mapping[str, Any] | None,
    max_turns: int,
) -> Toolset:
    """The tools that a user declared.

    Raises:
        UsageError: Something is no tool, or an option cannot be.
    """
    if tools is not None and not isinstance(tools, Iterable):
        raise UsageError(f"tools: a list of functions, not {tools!r:.100}")
    toolset = Toolset(
        tuple(map(as_tool, tools or ())),
        call_limit=None if call_limit is None else _at_least_one("tool_call_limit", call_limit),
        choice=_chosen(choice),
        max_turns=_at_least_one("max_turns", max_turns),
    )
    names = [each.name for each in toolset.tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"tools: {', '.join(twice)} is there twice; give one of them another name with tool(name=…)")
    if toolset.choice not in (None, *TOOL_CHOICES, *names):
        raise UsageError(f"tool_choice={choice!r} is none of {', '.join((*TOOL_CHOICES, *names))}")
    return toolset


def _chosen(choice: str | Mapping[str, Any] | None) -> str | None:
    """A name, also where it is written in the way of the Responses or the Chat Completions API."""
    if isinstance(choice, Mapping):
        function = choice.get("function")
        choice = (function if isinstance(function, Mapping) else choice).get("name", "")
    return choice if choice is None else str(choice)


def _at_least_one(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}={value!r}: a whole number, 1 or more")
    return value
