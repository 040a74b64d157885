"""Executes the calls that a model asks for in one turn, side by side, and says what came of each.

Whatever goes wrong in a call becomes its result, because the model can often help itself: it corrects an argument, tries another
tool, or says that it does not know. Only `ToolFailed` ends the attempt; and a call that has to wait for a person, once the
others are done.
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
from pgrun.run._complaint import invalid_arguments
from pgrun.run._people import Go, Instead, consult
from pgrun.run._storable import canonical_json, find_unstorable, storable_text
from pgrun.run._toolset import Toolset
from pgrun.run.base import ToolExecution
from pgrun.run.children import AgentTool, Children, ChildrenOpen
from pgrun.run.context import RunContext
from pgrun.run.journal import Journal, Step
from pgrun.run.metrics import RunMetrics
from pgrun.run.requirement import RunPaused, RunRequirement
from pgrun.run.state import Change, storable_changes, view_of
from pgrun.run.stream import Stream

_log = logging.getLogger("pgrun.run")

_AT_ONCE = 10  # calls of one run that execute side by side
_LAST_WORD = 5.0  # seconds to record a call that has ended, when the attempt is stopped
_MAX_CHARACTERS = 1000  # an error must not fill the model's context

_LIMIT_REACHED = "Tool call limit reached. Tool call {} not executed. Don't try to execute it again."


class ToolCalls:
    """The calls of one attempt.

    Attributes:
        context: Of the run, without the key of a call.
        executions: All of them until now, also those that are under way, and those that earlier attempts have made.
        journal: Of the run.
        used_by_children: What the runs that it started have used, as far as that became known in this attempt.
        stream: Of the attempt.
    """

    def __init__(
        self,
        toolset: Toolset,
        context: RunContext,
        journal: Journal | None = None,
        *,
        children: Children | None = None,
        stream: Stream | None = None,
    ) -> None:
        self.toolset = toolset
        self.executions: list[ToolExecution] = []
        self.context = context
        self.journal = journal or Journal()
        self.used_by_children: RunMetrics | None = None
        self.stream = stream or Stream()
        self._children = children or Children()
        self._open_children: set[int] = set()
        self._told: set[int] = set()
        self._keys: list[str] = []
        self._waiting: list[RunRequirement] = []
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
            RunPaused: Calls have to wait for a person; the others are in the journal.
            LeaseLost: The run belongs to another attempt.
            ChildrenOpen: Some of them are runs of their own, which have not ended yet; all others are in the journal.
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
        await self._keep_cancelled(first, number)
        if self._waiting:
            raise RunPaused(self._all_requirements())
        if self._open_children:
            raise ChildrenOpen
        return tuple(map(_result, calls, self.executions[first:]))

    async def _execute_soon(
        self, place: int, call: ToolCall, number: int, slots: anyio.Semaphore, scope: anyio.CancelScope
    ) -> None:
        execution = self.executions[place]
        try:
            async with slots:
                view = view_of(self.journal.state)
                context = replace(self.context, idempotency_key=self._keys[place], view=view)
                changes = await self._execute(execution, call, number, context)
            await self._keep(_step(number, execution), changes)
            self._tell_of(number, execution)
            self.stream.called_tool(execution)
        except _Waits as wait:
            self._waiting.append(wait.requirement)
        except ChildrenOpen:
            self._open_children.add(number)
        except (ToolFailed, LeaseLost) as error:
            self._failure = self._failure or error
            scope.cancel()

    async def _keep_cancelled(self, first: int, number: int) -> None:
        """Records calls that ended in a cancellation which nobody asked this attempt for."""
        waiting = self._open_children | {each.step for each in self._waiting}
        for step, execution in enumerate(self.executions[first:], number):
            if execution.result is None and execution.error is None and step not in waiting:
                execution.error = "CancelledError: the call was cancelled before it had a result"
                await self._keep(_step(step, execution))

    async def _keep(self, step: Step, changes: Sequence[Change] = ()) -> None:
        """Records a call that has ended, also when the attempt is stopped just then: or nobody would know that it has."""
        try:
            await self.journal.change(step, changes)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(_LAST_WORD, shield=True):
                await self.journal.change(step, changes)
            raise

    def _tell_of(self, number: int, execution: ToolExecution) -> None:
        """Tells that a call has begun, once."""
        if number not in self._told:
            self._told.add(number)
            self.stream.calls_tool(execution)

    def _all_requirements(self) -> list[RunRequirement]:
        """What was decided before, and what waits now, in the order in which the model asked for it."""
        decided = [each for each in self.journal.requirements if not each.is_open]
        return [*decided, *sorted(self._waiting, key=lambda each: each.step)]

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

    async def _execute(
        self, execution: ToolExecution, call: ToolCall, number: int, context: RunContext
    ) -> list[Change]:
        """Fills in what came of a call; returns what it has changed in the state of the session."""
        began = time.monotonic()
        try:
            result = await self._call(execution, call, number, context)
            changes = storable_changes(context.view)
            execution.result = result
            return changes
        except (_Waits, ChildrenOpen, LeaseLost):
            raise
        except _NoResult as error:
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

    async def _call(self, execution: ToolExecution, call: ToolCall, number: int, context: RunContext) -> str:
        tool = self.toolset.find(call.name)
        if tool is None:
            raise _NoResult(f"There is no tool {call.name}; there are: {self.toolset.names}")
        try:
            kwargs = tool.load(call.arguments, context)
        except ValidationError as error:
            raise _NoResult(invalid_arguments(error)) from None
        match consult(tool, execution, self.journal, number):
            case RunRequirement() as requirement:
                raise _Waits(requirement)
            case Instead(error=str(reason)):
                raise _NoResult(reason)
            case Instead(result):
                return result or ""
            case Go() if isinstance(tool, AgentTool):
                self._tell_of(number, execution)
                return await self._ask(tool, kwargs["request"], context.idempotency_key)
            case Go(given):
                self._tell_of(number, execution)
                if tool.repeat == "unsafe":
                    await self.journal.start(number, tool.name)
                value = await tool.execute({**kwargs, **given})
        return storable_text(value if isinstance(value, str) else to_json(value, fallback=str).decode())

    async def _ask(self, tool: AgentTool, request: str, key: str) -> str:
        answered = await self._children.ask(tool, request, key)
        if answered is None:
            raise ChildrenOpen
        self.used_by_children = (self.used_by_children or RunMetrics()) + answered.metrics
        if answered.result is None:
            raise _NoResult(answered.error)
        return storable_text(answered.result)


class _NoResult(Exception):
    """A call that was not made, or came to nothing; the model is told why."""


class _Waits(Exception):
    """Nothing was called yet, because a person has to decide."""

    def __init__(self, requirement: RunRequirement) -> None:
        super().__init__(requirement.name)
        self.requirement = requirement


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
    return Message("tool", execution.result or execution.error or "", call_id=call.call_id)


def _told(error: BaseException) -> str:
    return _shortened(f"{type(error).__name__}: {error}")


def _shortened(text: str) -> str:
    return storable_text(text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…")
