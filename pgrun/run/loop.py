"""The turns of one attempt: ask the model, call what it wants called, let it repair an invalid answer, and come to an end.

Each answer but the last goes into the journal before anything follows from it; one that is there already is not asked for.

Knows no database and no provider; a worker gives it a model and stores what it returns.
"""

import json
import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from pydantic import TypeAdapter
from pydantic_core import from_json

from pgrun.errors import (
    AttemptError,
    ContentFiltered,
    ModelRefused,
    OutputInvalid,
    OutputTruncated,
    TurnLimitExceeded,
)
from pgrun.models.base import (
    Message,
    Model,
    ModelRequest,
    ModelResponse,
    OutputFormat,
    PreviousForgotten,
    ToolCall,
)
from pgrun.retry import Ambiguous
from pgrun.run._calls import Calls
from pgrun.run._storable import storable_json, storable_text
from pgrun.run._tool_calls import ToolCalls
from pgrun.run.journal import Step
from pgrun.run.metrics import LastAnswer, RunMetrics
from pgrun.run.output import OutputSchema
from pgrun.run.previous import Previous

_log = logging.getLogger("pgrun.run")

MAX_REPAIRS = 2
"""Turns in which the model may mend an answer that does not match its schema, after it was shown what is wrong."""


@dataclass
class Turns:
    """One attempt at one run, with what it has used so far; `metrics`, `calls` and `taken` also hold after a failure."""

    model: Model
    messages: tuple[Message, ...]
    output: OutputSchema[Any] | None = None
    calls: ToolCalls = field(kw_only=True)
    ambiguous: Ambiguous = field(default="retry", kw_only=True)
    json_mode: bool = field(default=False, kw_only=True)
    hears: bool = field(default=True, kw_only=True)
    """Whether what is said to the run meanwhile is for this model."""
    previous: Previous | None = field(default=None, kw_only=True)
    """What the conversation goes on from by an id of the provider; None: it is told as a whole, and nobody goes on from it."""
    metrics: RunMetrics = field(default_factory=RunMetrics)
    taken: int = 0
    """How many times the model has answered."""
    _last: "_Answer | None" = field(default=None, init=False)
    _most: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._most = self.calls.toolset.max_turns

    async def take(self) -> Any:
        """Asks until there is a valid answer and returns it as JSON data to store: text, or what the schema describes.

        Raises:
            AttemptError: There is none; the class says why.
        """
        repairs = 0
        while await self._goes_on():
            answer = await self._answer()
            if answer.response.calls:
                await self._keep(answer)
                await self._call(answer.response)
                continue
            try:
                content = self._read(answer.response.text)
            except OutputInvalid as error:
                if self.output is None or repairs == MAX_REPAIRS or self.taken == self._most:
                    raise
                await self._keep(answer)
                repairs += 1
                self._say(answer.response, Message("user", self.output.complaint(error)))
            else:
                if not self.hears or not self.calls.journal.has_news:
                    return content
                await self.go_on()
        raise TurnLimitExceeded(
            f"no answer within {self._most} turns; raise max_turns, or tell the agent when to stop", turns=self._most
        )

    async def _goes_on(self) -> bool:
        """Whether there are turns left. What was said to the run meanwhile comes into the conversation, and gives new ones."""
        if self.hears and (texts := await self.calls.journal.hear()):
            self.messages = (*self.messages, *(Message("user", text) for text in texts))
            self._most = self.taken + self.calls.toolset.max_turns
        return self.taken < self._most

    async def _answer(self) -> "_Answer":
        number = self.calls.journal.begin()
        if recorded := self.calls.journal.find(number, "model_call"):
            self.taken += 1
            self._last = _Answer(recorded_answer(recorded))
        else:
            began = time.monotonic()
            response = await self._ask(number, began)
            self._last = _Answer(response, number, time.monotonic() - began)
        return self._last

    async def _keep(self, answer: "_Answer") -> None:
        if step := self._step(answer):
            await self.calls.journal.keep(step)

    async def keep_last(self) -> None:
        """Records the last answer, because something follows from it."""
        assert self._last is not None
        await self._keep(self._last)
        self._last = replace(self._last, number=None)

    async def go_on(self) -> None:
        """Makes the last answer a part of the conversation, which `take` then goes on with."""
        assert self._last is not None
        await self.keep_last()
        self._say(self._last.response)

    def last_step(self) -> Step | None:
        """The last answer as a step of the journal, in which it is not yet; None if it is."""
        return self._step(self._last) if self._last else None

    def _step(self, answer: "_Answer") -> Step | None:
        if answer.number is None:
            return None
        data = from_json(storable_json(json.dumps(_RESPONSE.dump_python(answer.response, exclude_defaults=True))))
        return Step(answer.number, "model_call", self.model.id, data, answer.duration)

    async def _ask(self, number: int, began: float) -> ModelResponse:
        stream = self.calls.stream
        stream.asked()
        self.calls.journal.has_answer = False
        try:
            response = await self._make(number)
        except AttemptError as error:
            if error.metrics is not None:
                self.metrics += error.metrics
            raise
        self.metrics += response.usage + RunMetrics(last_answer=self._facts_of(response))
        self.calls.journal.has_answer = True
        self.taken += 1
        stream.answered(self.model.id, response, time.monotonic() - began)
        if response.ending != "completed":
            _stop(response)
        return response

    async def _make(self, number: int) -> ModelResponse:
        calls = Calls(self.model, self.calls.journal, self.ambiguous)
        try:
            return await calls.make(number, self._request())
        except PreviousForgotten as error:
            assert self.previous is not None
            _log.info("what was said before is told anew: %s", error)
            self.messages, self.previous = self.previous.told_instead(self.messages), Previous()
        return await calls.make(number, self._request())

    def _facts_of(self, response: ModelResponse) -> LastAnswer:
        response_id = None if response.response_id is None else storable_text(response.response_id)
        return LastAnswer(
            provider=self.model.provider,
            model=self.model.id,
            response_id=response_id,
            rate_limits=response.rate_limits,
        )

    def _request(self) -> ModelRequest:
        output = OutputFormat(self.output.name, self.output.strict_schema, self.json_mode) if self.output else None
        return ModelRequest(
            self.messages,
            output,
            self.calls.toolset.specs,
            self.calls.choice,
            watch=self.calls.stream,
            is_kept=self.previous is not None,
            previous_response_id=self.previous.response_id if self.previous else None,
        )

    def _read(self, text: str) -> Any:
        return self.output.read(text).content if self.output else storable_text(text)

    async def _call(self, response: ModelResponse) -> None:
        """Adds the calls and their results to the conversation: both or neither, for one without the other cannot be sent."""
        asked = as_message(response)
        results = await self.calls.answer(asked.calls)
        self.messages = (*self.messages, asked, *results)

    def _say(self, response: ModelResponse, *replies: Message) -> None:
        self.messages = (*self.messages, Message("assistant", storable_text(response.text)), *replies)


@dataclass(frozen=True)
class _Answer:
    """An answer of the model, with its number in the journal if it has to go there."""

    response: ModelResponse
    number: int | None = None
    duration: float = 0.0


_RESPONSE = TypeAdapter(ModelResponse)


def recorded_answer(data: Any) -> ModelResponse:
    """The answer that is recorded in a step."""
    return _RESPONSE.validate_python(data)


def as_message(response: ModelResponse) -> Message:
    """An answer with calls as a message that can be stored and sent."""
    calls = tuple(
        ToolCall(storable_text(call.call_id), storable_text(call.name), storable_json(call.arguments))
        for call in response.calls
    )
    items = from_json(storable_json(json.dumps(response.items)))
    return Message("assistant", storable_text(response.text), calls=calls, items=tuple(items))


def _stop(response: ModelResponse) -> NoReturn:
    raw = storable_text(response.text)
    facts: dict[str, Any] = {"response_id": response.response_id, "raw": raw or None}
    match response.ending:
        case "refused":
            refusal = storable_text(response.refusal or "")
            raise ModelRefused(f"the model declined to answer: {refusal}", refusal=refusal, **facts)
        case "truncated":
            raise OutputTruncated("the answer hit the token limit; raise that of the model or ask for less", **facts)
        case _:
            raise ContentFiltered("the provider's content filter cut the answer", **facts)
