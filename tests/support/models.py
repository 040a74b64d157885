"""A model for tests that are not about a provider: it gives the answers it was made with, one per call."""

from collections.abc import Sequence
from typing import Any

from pgrun import RunMetrics
from pgrun.errors import AttemptError
from pgrun.models.base import ModelRequest, ModelResponse, ToolCall
from pgrun.run.metrics import LastAnswer

USAGE = RunMetrics(
    input_tokens=10,
    output_tokens=3,
    total_tokens=13,
    cached_tokens=4,
    reasoning_tokens=1,
    last_answer=LastAnswer(provider="scripted", model="scripted"),
)
"""What an answer of `ScriptedModel` adds to the metrics of its run."""


class ScriptedModel:
    """Keeps what it was asked; a text is an answer with some usage."""

    provider = "scripted"
    id = "scripted"

    def __init__(self, *answers: str | ModelResponse | AttemptError) -> None:
        self.asked: list[ModelRequest] = []
        self._answers = iter(answers)

    def definition(self) -> dict[str, Any]:
        return {"provider": self.provider, "id": self.id}

    async def call(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        answer = next(self._answers)
        if isinstance(answer, AttemptError):
            raise answer
        return ModelResponse(answer, usage=USAGE) if isinstance(answer, str) else answer


def calling(*calls: tuple[str, str], text: str = "", items: Sequence[dict[str, Any]] = ()) -> ModelResponse:
    """An answer that asks for calls, each a name and its arguments as JSON; their ids are `call_1`, `call_2` …"""
    made = tuple(ToolCall(f"call_{number}", *call) for number, call in enumerate(calls, 1))
    return ModelResponse(text, usage=USAGE, calls=made, items=tuple(items))
