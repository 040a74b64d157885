"""Whether a call may be made now, or has to wait for a person first, or what that person has decided instead.

What has been decided is in the journal, so an attempt that takes over finds it there, as often as it takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pgrun.run._complaint import invalid_arguments
from pgrun.run._storable import storable_text
from pgrun.run.base import ToolExecution
from pgrun.run.journal import Journal
from pgrun.run.requirement import RequirementKind, RunRequirement
from pgrun.run.tools import Tool


@dataclass(frozen=True)
class Go:
    """Call it, with what a person gave beside the arguments of the model."""

    given: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Instead:
    """Do not call it: show the model this result, or this error."""

    result: str | None = None
    error: str | None = None


def consult(
    tool: Tool[..., Any], execution: ToolExecution, journal: Journal, number: int
) -> Go | Instead | RunRequirement:
    """Says what is to happen with a call whose arguments are valid: a requirement is what it has to wait for.

    Args:
        tool: What is called.
        execution: The call.
        journal: Of the run.
        number: Of the call in it.
    """
    asked, times = journal.asked(number), journal.begun(number)
    if asked and asked[-1].approved is False:  # whatever the tool may be declared as by now
        return _instead(asked[-1])
    facts: dict[str, Any] = {
        "step": number,
        "call_id": execution.call_id,
        "name": tool.name,
        "arguments": execution.arguments,
    }
    if tool.repeat == "unsafe" and times:
        repeat = _last(asked, "repeat")
        if repeat is None or repeat.is_open or repeat.times != times:  # what was decided was about an earlier beginning
            return RunRequirement(kind="repeat", times=times, **facts)
        if repeat.result is not None:
            return _instead(repeat)
    if tool.waits_for is None:
        return Go()
    wanted = _last(asked, tool.waits_for)
    if wanted is None or wanted.is_open:
        return RunRequirement(kind=tool.waits_for, fields=[*tool.fields], **facts)
    if wanted.kind == "external":
        return _instead(wanted)
    try:
        return Go(tool.load_input(wanted.input or {}))
    except ValidationError as error:
        return RunRequirement(kind="user_input", fields=[*tool.fields], problem=invalid_arguments(error), **facts)


def _last(asked: Sequence[RunRequirement], kind: RequirementKind) -> RunRequirement | None:
    return next((each for each in reversed(asked) if each.kind == kind), None)


def _instead(decided: RunRequirement) -> Instead:
    if decided.approved:
        return Instead(result=storable_text(decided.result or ""))
    if decided.kind == "repeat":
        what = "Nobody knows whether this call was executed, and a person decided that it is not to be repeated."
    else:
        what = "A person rejected this call, and it was not executed."
    return Instead(error=f"{what} They say: {decided.note}" if decided.note else what)
