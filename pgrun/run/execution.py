"""One attempt at a run of an agent: prepare the conversation, take turns with the model, let parser and hooks have their say.

::

    pre-hooks  ─►  instructions, state, history, input  ─►  turns  ─►  parser model  ─►  post-hooks  ─►  content
                                                              ▲                                            │
                                                              └── something was said to the run meanwhile ─┘

Hooks are steps of the journal: an attempt that takes over does not call again those that are recorded.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import from_json, to_json

from pgrun.errors import HookFailed, UsageError
from pgrun.models.base import Message
from pgrun.run._code import Code
from pgrun.run._storable import storable_text, to_jsonable
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import Toolset
from pgrun.run.base import RunOutput, RunStatus
from pgrun.run.children import Children
from pgrun.run.context import RunContext, RunInput
from pgrun.run.conversation import Past, conversation, split
from pgrun.run.definition import AgentDefinition, lines_of
from pgrun.run.journal import Journal, Step
from pgrun.run.loop import Turns
from pgrun.run.metrics import LastAnswer, RunMetrics
from pgrun.run.output import OutputSchema
from pgrun.run.state import storable_changes, view_of
from pgrun.run.stream import Stream

_PARSE = "Extract what the text says into the required form. Add nothing that is not in it."


@dataclass
class Execution:
    """One attempt; `metrics` and `turns` also hold after a failure.

    Attributes:
        definition: Of the agent.
        output: Type of the answer; None for text.
        data: The input as it is stored.
        context: Of the run, without the state of the session, which is in the journal.
        journal: Of the run.
        past: What it is to remember.
        media: Images and files that belong to the input.
        children: Of the run.
        stream: Of the attempt.
    """

    definition: AgentDefinition
    output: OutputSchema[Any] | None
    data: Any
    context: RunContext
    journal: Journal = field(default_factory=Journal)
    past: Sequence[Past] = ()
    media: Sequence[Mapping[str, Any]] = ()
    children: Children | None = None
    stream: Stream | None = None

    def __post_init__(self) -> None:
        definition = self.definition
        output = None if definition.parser_model else self.output
        calls = ToolCalls(definition.tools, self.context, self.journal, children=self.children, stream=self.stream)
        self.turns = Turns(definition.model, (), output, calls=calls, **self._manner())
        self._parsed = RunMetrics()
        self._parsing: Turns | None = None
        self._is_altered = False

    @property
    def metrics(self) -> RunMetrics:
        """What it has used until now, the runs that it started included."""
        parsing = self._parsed + (self._parsing.metrics if self._parsing else RunMetrics())
        parsing.last_answer = None
        used = self.turns.metrics + parsing + RunMetrics(children=self.turns.calls.used_by_children)
        if self._is_altered:  # nobody is to go on from what was not answered so
            model = self.turns.model
            last = used.last_answer or LastAnswer(provider=model.provider, model=model.id)  # of an attempt before
            used.last_answer = last.model_copy(update={"response_id": None})
        return used

    def last_step(self) -> Step | None:
        """The last answer of the agent's model as a step that is not in the journal yet."""
        return self.turns.last_step()

    async def take(self) -> Any:
        """Carries it out and returns the answer as JSON data to store: text, or what the schema describes.

        Raises:
            AttemptError: There is none; the class says why.
        """
        if not self.turns.messages:
            await self._prepare()
        while True:
            content = await self._finished(await self.turns.take())
            if not self.journal.has_news:
                return content
            await self.turns.go_on()

    async def _prepare(self) -> None:
        dependencies = await self._dependencies()
        self.context = replace(self.context, dependencies=dependencies)
        self.turns.calls.context = replace(self.turns.calls.context, dependencies=dependencies)
        for hook in self.definition.pre_hooks:
            await self._before(hook)
        prompt = self.definition.prompt(
            await self._instructions(), is_typed=self.output is not None, session_state=self.journal.state
        )
        shown = dependencies if self.definition.add_dependencies_to_context else None
        past = self.past
        if self.definition.use_previous_response_id:
            self.turns.previous, past = split(past, self.turns.model)
        self.turns.messages = conversation(prompt, self.data, past, dependencies=shown, media=self.media)

    async def _dependencies(self) -> dict[str, Any]:
        found = {**self.definition.dependencies, **self.context.dependencies}
        return {name: await each.call(self._view()) if isinstance(each, Code) else each for name, each in found.items()}

    async def _instructions(self) -> tuple[str, ...]:
        instructions = self.definition.instructions
        if not isinstance(instructions, Code):
            return instructions
        try:
            return tuple(map(storable_text, lines_of(await instructions.call(self._view()) or ())))
        except UsageError as error:
            raise HookFailed(f"{instructions!r} returned something else: {error}") from error

    async def _before(self, hook: Code) -> None:
        async def call(context: RunContext) -> Any:
            asked = RunInput(input_content=self.data)
            await hook.call(context, run_input=asked)
            return to_jsonable(asked.input_content, name="input")

        self.data = await self._once(hook, call)

    async def _finished(self, content: Any) -> Any:
        if self.definition.parser_model and self.output:
            await self.turns.keep_last()
            content = await self._parse(content)
        answered = content
        for hook in self.definition.post_hooks:
            await self.turns.keep_last()
            content = await self._after(hook, content)
        self._is_altered = content != answered
        return content

    async def _parse(self, text: str) -> Any:
        model = self.definition.parser_model
        assert model is not None
        if self._parsing is not None:
            self._parsed += self._parsing.metrics
        prompt = Message("system", self.definition.parser_model_prompt or _PARSE)
        calls = ToolCalls(Toolset(), self.context, self.journal, stream=self.stream)
        messages = (prompt, Message("user", text))
        self._parsing = Turns(model, messages, self.output, calls=calls, hears=False, **self._manner())
        content = await self._parsing.take()
        if self.definition.post_hooks or self.journal.has_news:
            await self._parsing.keep_last()
        return content

    async def _after(self, hook: Code, content: Any) -> Any:
        async def call(context: RunContext) -> Any:
            run = self._as_output(content)
            await hook.call(context, run_output=run)
            return self._checked(run.content)

        return await self._once(hook, call)

    def _manner(self) -> dict[str, Any]:
        """How models are asked."""
        return {"json_mode": self.definition.use_json_mode, "ambiguous": self.definition.retry.ambiguous}

    def _as_output(self, content: Any) -> RunOutput[Any]:
        return RunOutput(
            run_id=self.context.run_id,
            session_id=self.context.session_id,
            agent_name=self.context.agent_name,
            status=RunStatus.running,
            content=self.output.load(content) if self.output else content,
            content_type=self.output.name if self.output else "str",
            input=self.data,
            attempt=self.context.attempt,
            metrics=self.metrics,
            tools=self.turns.calls.executions,
            metadata={**self.context.metadata},
        )

    def _checked(self, content: Any) -> Any:
        """What a hook has left, as data that fits the schema."""
        if self.output is None:
            return storable_text(content if isinstance(content, str) else to_json(content, fallback=str).decode())
        data = to_jsonable(content, name="content")
        return self.output.read(to_json({"value": data} if self.output.is_wrapped else data).decode()).content

    async def _once(self, hook: Code, call: Any) -> Any:
        """What a hook leaves; what an attempt before has recorded of it is taken from there."""
        number = self.journal.begin()
        recorded = self.journal.find(number, "hook")
        if recorded is not None:
            return recorded["left"]
        began, context = time.monotonic(), self._view()
        try:
            left = await call(context)
            changes = storable_changes(context.view)
        except UsageError as error:
            raise HookFailed(f"{hook!r} left what cannot be stored: {error}") from error
        left = from_json(to_json(left))
        await self.journal.change(Step(number, "hook", hook.name, {"left": left}, time.monotonic() - began), changes)
        return left

    def _view(self) -> RunContext:
        return replace(self.context, view=view_of(self.journal.state))
