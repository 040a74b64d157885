"""The turns of one attempt: ask the model, check the answer, let it repair an invalid one, and come to an end.

Knows no database and no provider; a worker gives it a model and stores what it returns.
"""

from dataclasses import dataclass, field
from typing import Any, NoReturn

from pgrun.errors import AttemptError, ContentFiltered, ModelRefused, OutputInvalid, OutputTruncated
from pgrun.models.base import Message, Model, ModelRequest, ModelResponse, OutputFormat
from pgrun.run._storable import storable_text
from pgrun.run.base import RunMetrics
from pgrun.run.output import OutputSchema

MAX_REPAIRS = 2
"""Turns in which the model may mend an answer that does not match its schema, after it was shown what is wrong."""


@dataclass
class Turns:
    """One attempt at one run, with what it has used so far; `metrics` also holds after a failure."""

    model: Model
    messages: tuple[Message, ...]
    output: OutputSchema[Any] | None = None
    metrics: RunMetrics = field(default_factory=RunMetrics)

    async def take(self) -> Any:
        """Asks until there is a valid answer and returns it as JSON data to store: text, or what the schema describes.

        Raises:
            AttemptError: There is none; the class says why.
        """
        if self.output is None:
            return storable_text((await self._ask()).text)
        for _ in range(MAX_REPAIRS):
            response = await self._ask()
            try:
                return self.output.read(response.text).content
            except OutputInvalid as error:
                self._show(response, self.output.complaint(error))
        return self.output.read((await self._ask()).text).content

    async def _ask(self) -> ModelResponse:
        try:
            response = await self.model.call(ModelRequest(self.messages, self._format()))
        except AttemptError as error:
            if error.metrics is not None:
                self.metrics += error.metrics
            raise
        self.metrics += response.usage
        if response.ending != "completed":
            _stop(response)
        return response

    def _format(self) -> OutputFormat | None:
        return OutputFormat(self.output.name, self.output.strict_schema) if self.output else None

    def _show(self, response: ModelResponse, complaint: str) -> None:
        self.messages = (*self.messages, Message("assistant", storable_text(response.text)), Message("user", complaint))


def _stop(response: ModelResponse) -> NoReturn:
    raw = storable_text(response.text)
    facts: dict[str, Any] = {"response_id": response.response_id, "raw": raw or None}
    match response.ending:
        case "refused":
            refusal = storable_text(response.refusal or "")
            raise ModelRefused(f"the model declined to answer: {refusal}", refusal=refusal, **facts)
        case "truncated":
            raise OutputTruncated("the answer hit the token limit; raise max_output_tokens or ask for less", **facts)
        case _:
            raise ContentFiltered("the provider's content filter cut the answer", **facts)
