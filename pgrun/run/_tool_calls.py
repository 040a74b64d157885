"""Executes the calls that a model asks for in one turn, side by side, and says what came of each.

Whatever goes wrong in a call becomes its result, because the model can often help itself: it corrects an argument, tries another
tool, or says that it does not know. Only `ToolFailed` ends the attempt.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any

import anyio
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from pgrun.errors import AttemptError, LeaseLost, ToolFailed
from pgrun.models.base import Message, ToolCall
from pgrun.run._storable import canonical_json, find_unstorable, path_text, storable_text
from pgrun.run._toolset import Toolset
from pgrun.run.base import ToolExecution
from pgrun.run.context import RunContext
from pgrun.run.journal import Journal, Step
from pgrun.run.state import Change, storable_changes, view_of

_log = logging.getLogger("pgrun.run")

_AT_ONCE = 10  # calls of one run that execute side by side
# An error must not fill the model's context.
_MAX_COMPLAINTS = 20
_MAX_CHARACTERS = 1000

_LIMIT_REACHED = "Tool call limit reached. Tool call {} not executed. Don't try to execute it again."


class ToolCalls:
    """The calls of one attempt.

    Attributes:
        context: Of the run, without the key of a call.
        executions: All of them until now, also those that are under way, and those that earlier attempts have made.
        journal: Of the run.
    """

    def __init__(self, toolset: Toolset, context: RunContext, journal: Journal | None = None) -> None:
        self.toolset = toolset
        self.executions: list[ToolExecution] = []
        self.context = context
        self.journal = journal or Journal()
        self._keys: list[str] = []
        self._failure: AttemptError | None = None

    @property
    def choice(self) -> str | None:
        """What the model may choose next: no more of what it must once it did, and nothing after it ran into the limit."""
        limit, made = self.toolset.call_limit, len(self.executions)
        if limit is not None and made > limit:
            return "none"
        return None if made and self.toolset.choice != "none" else self.toolset.choice

    async def answer(self, calls: Sequence[ToolCall]) -> tuple[Message, ...]:
        """Executes those calls of one turn that are not in the journal, and returns the results, in the order of the calls.

        Args:
            calls: As the model wrote them, without what Postgres cannot store.

        Raises:
            ToolFailed: A tool says that the run cannot go on; the other calls are cancelled.
            LeaseLost: The run belongs to another attempt.
        """
        first, number = len(self.executions), self.journal.begin(len(calls))
        self.executions += [_begun(call) for call in calls]
        for execution in self.executions[first:]:
            self._keys.append(self._key(execution))
        slots = anyio.Semaphore(_AT_ONCE)
        async with anyio.create_task_group() as group:
            for place, call in enumerate(calls, first):
                if self._is_over_limit(place):
                    self.executions[place].error = _LIMIT_REACHED.format(call.name)
                elif recorded := self.journal.find(number + place - first, "tool_call"):
                    self.executions[place] = ToolExecution.model_validate(recorded)
                else:
                    group.start_soon(self._execute_soon, place, call, number + place - first, slots, group.cancel_scope)
        if self._failure is not None:
            raise self._failure
        return tuple(map(_result, calls, self.executions[first:]))

    async def _execute_soon(
        self, place: int, call: ToolCall, number: int, slots: anyio.Semaphore, scope: anyio.CancelScope
    ) -> None:
        execution = self.executions[place]
        try:
            async with slots:
                view = view_of(self.journal.state)
                context = replace(self.context, idempotency_key=self._keys[place], view=view)
                changes = await self._execute(execution, call, context)
            await self.journal.change(_step(number, execution), changes)
        except (ToolFailed, LeaseLost) as error:
            self._failure = self._failure or error
            scope.cancel()

    def _is_over_limit(self, place: int) -> bool:
        return self.toolset.call_limit is not None and place >= self.toolset.call_limit

    def _key(self, execution: ToolExecution) -> str:
        """What is called, and a number: another attempt may do the same in another order.

        The place alone would do only if the model always asked for the same: a service that knows the key already would take
        a call with other arguments for the first one. A call that failed may have come through all the same, so
        when it is made again it has the key that it had.
        """
        digest = sha256(canonical_json(execution.arguments).encode()).hexdigest()[:16]
        this = f"{self.context.run_id}/{execution.name}/{digest}"
        taken = {key for key, each in zip(self._keys, self.executions, strict=False) if each.error is None}
        return next(key for number in count(1) if (key := f"{this}/{number}") not in taken)

    async def _execute(self, execution: ToolExecution, call: ToolCall, context: RunContext) -> list[Change]:
        """Fills in what came of a call; returns what it has changed in the state of the session."""
        began = time.monotonic()
        try:
            result = await self._call(call, context)
            changes = storable_changes(context.view)
            execution.result = result
            return changes
        except _NotACall as error:
            execution.error = _shortened(str(error))
        except ToolFailed as error:
            execution.error = _told(error)
            raise
        except (Exception, SystemExit) as error:
            _log.warning("tool %s of run %s raised", call.name, context.run_id, exc_info=error)
            execution.error = _told(error)
        finally:
            execution.duration = time.monotonic() - began
        return []

    async def _call(self, call: ToolCall, context: RunContext) -> str:
        tool = self.toolset.find(call.name)
        if tool is None:
            raise _NotACall(f"There is no tool {call.name}; there are: {self.toolset.names}")
        try:
            kwargs = tool.load(call.arguments, context)
        except ValidationError as error:
            raise _NotACall(_complaint(error)) from None
        value = await tool.execute(kwargs)
        return storable_text(value if isinstance(value, str) else to_json(value, fallback=str).decode())


class _NotACall(Exception):
    """Nothing was called, and the model is told why."""


def _begun(call: ToolCall) -> ToolExecution:
    arguments: dict[str, Any] | str = call.arguments
    try:
        data = from_json(call.arguments or "{}", allow_inf_nan=False)
        if isinstance(data, dict) and find_unstorable(data) is None:
            arguments = data
    except ValueError:
        pass
    return ToolExecution(call_id=call.call_id, name=call.name, arguments=arguments)


def _step(number: int, execution: ToolExecution) -> Step:
    return Step(number, "tool_call", execution.name, execution.model_dump(exclude_none=True), execution.duration)


def _result(call: ToolCall, execution: ToolExecution) -> Message:
    if execution.result is None and execution.error is None:
        execution.error = "CancelledError: the call was cancelled before it had a result"
    return Message("tool", execution.result or execution.error or "", call_id=call.call_id)


def _complaint(error: ValidationError) -> str:
    """What is wrong with the arguments; not what they were, which the model knows and a log need not."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_COMPLAINTS]
    lines = [f"{path_text(each['loc'])}: {each['msg']}" if each["loc"] else each["msg"] for each in found]
    return f"Invalid arguments: {'; '.join(lines)}"


def _told(error: BaseException) -> str:
    return _shortened(f"{type(error).__name__}: {error}")


def _shortened(text: str) -> str:
    return storable_text(text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…")
