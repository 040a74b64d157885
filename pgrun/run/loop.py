"""The turns of one attempt: ask the model, call what it wants called, let it repair an invalid answer, and come to an end.

Each answer but the last goes into the journal before anything follows from it; one that is there already is not asked for.

Knows no database and no provider; a worker gives it a model and stores what it returns.
"""

import json
import time
from dataclasses import dataclass, field
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
from pgrun.models.base import Message, Model, ModelRequest, ModelResponse, OutputFormat, ToolCall
from pgrun.retry import Ambiguous
from pgrun.run._calls import Calls
from pgrun.run._storable import storable_json, storable_text
from pgrun.run._tool_calls import ToolCalls
from pgrun.run.base import RunMetrics
from pgrun.run.journal import Step
from pgrun.run.output import OutputSchema

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
    metrics: RunMetrics = field(default_factory=RunMetrics)
    taken: int = 0
    """How many times the model has answered."""

    async def take(self) -> Any:
        """Asks until there is a valid answer and returns it as JSON data to store: text, or what the schema describes.

        Raises:
            AttemptError: There is none; the class says why.
        """
        repairs, most = 0, self.calls.toolset.max_turns
        while self.taken < most:
            answer = await self._answer()
            if answer.response.calls:
                await self._keep(answer)
                await self._call(answer.response)
                continue
            try:
                return self._read(answer.response.text)
            except OutputInvalid as error:
                if self.output is None or repairs == MAX_REPAIRS or self.taken == most:
                    raise
                await self._keep(answer)
                repairs += 1
                self._show(answer.response, self.output.complaint(error))
        raise TurnLimitExceeded(
            f"no answer within {most} turns; raise max_turns, or tell the agent when to stop", turns=most
        )

    async def _answer(self) -> "_Answer":
        number = self.calls.journal.begin()
        if recorded := self.calls.journal.find(number, "model_call"):
            self.taken += 1
            return _Answer(_RESPONSE.validate_python(recorded))
        began = time.monotonic()
        response = await self._ask(number, began)
        return _Answer(response, number, time.monotonic() - began)

    async def _keep(self, answer: "_Answer") -> None:
        if answer.number is not None:
            data = from_json(storable_json(json.dumps(_RESPONSE.dump_python(answer.response, exclude_defaults=True))))
            await self.calls.journal.keep(Step(answer.number, "model_call", self.model.id, data, answer.duration))

    async def _ask(self, number: int, began: float) -> ModelResponse:
        stream = self.calls.stream
        stream.asked()
        try:
            response = await Calls(self.model, self.calls.journal, self.ambiguous).make(number, self._request())
        except AttemptError as error:
            if error.metrics is not None:
                self.metrics += error.metrics
            raise
        self.metrics += response.usage
        self.taken += 1
        stream.answered(self.model.id, response, time.monotonic() - began)
        if response.ending != "completed":
            _stop(response)
        return response

    def _request(self) -> ModelRequest:
        output = OutputFormat(self.output.name, self.output.strict_schema) if self.output else None
        return ModelRequest(self.messages, output, self.calls.toolset.specs, self.calls.choice, watch=self.calls.stream)

    def _read(self, text: str) -> Any:
        return self.output.read(text).content if self.output else storable_text(text)

    async def _call(self, response: ModelResponse) -> None:
        """Adds the calls and their results to the conversation: both or neither, for one without the other cannot be sent."""
        asked = _asked(response)
        results = await self.calls.answer(asked.calls)
        self.messages = (*self.messages, asked, *results)

    def _show(self, response: ModelResponse, complaint: str) -> None:
        self.messages = (*self.messages, Message("assistant", storable_text(response.text)), Message("user", complaint))


@dataclass(frozen=True)
class _Answer:
    """An answer of the model, with its number in the journal if it has to go there."""

    response: ModelResponse
    number: int | None = None
    duration: float = 0.0


_RESPONSE = TypeAdapter(ModelResponse)


def _asked(response: ModelResponse) -> Message:
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
