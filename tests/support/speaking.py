"""A model that says its answers piece by piece, as a test wants it, and an agent of it."""

from dataclasses import replace
from typing import Any

import anyio

from pgrun import Agent, PostgresDb, RetryPolicy
from pgrun.errors import AttemptError
from pgrun.models.base import ModelRequest, ModelResponse
from support.models import USAGE

SOON = RetryPolicy(base_delay=0.01, max_attempts=3, jitter=0.0)
Item = str | anyio.Event | ModelResponse | AttemptError


class SpeakingModel:
    """Follows a script, which all its calls share.

    Args:
        script: A text is said as a piece of the answer, an event is waited for, a response ends the call with all that was
            said in it, an error ends it too; at the end of the script so does `USAGE`.
    """

    provider = "speaking"
    id = "speaking"

    def __init__(self, *script: Item) -> None:
        self.asked: list[ModelRequest] = []
        self.is_stopped = False
        self._script = iter(script)

    def definition(self) -> dict[str, Any]:
        return {"provider": self.provider, "id": self.id}

    async def call(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        said = ""
        for item in self._script:
            match item:
                case str():
                    said += item
                    request.watch.text(item)
                case ModelResponse():
                    return replace(item, text=said or item.text)
                case AttemptError():
                    raise item
                case _:
                    await self._wait(item)
        return ModelResponse(said, usage=USAGE)

    async def _wait(self, event: anyio.Event) -> None:
        try:
            await event.wait()
        except BaseException:
            self.is_stopped = True
            raise


ANSWERED = ModelResponse("", usage=USAGE)


def agent_of(db: PostgresDb, *script: Item, **options: Any) -> Agent[Any]:
    """An agent whose model follows this script, and that tries again at once."""
    return Agent(name="Speaking", model=SpeakingModel(*script), db=db, retry=SOON, **options)


def model_of(agent: Agent[Any]) -> SpeakingModel:
    model = agent.definition.model
    assert isinstance(model, SpeakingModel)
    return model
