"""An agent whose model blocks the event loop of its worker; a worker gets it by ``--import support.blocking_agent``."""

import time
from typing import Any

from pgrun import Agent
from pgrun.models.base import ModelRequest, ModelResponse


class BlockingModel:
    """Sleeps for as many seconds as it is asked to, the way no asynchronous program may."""

    provider = "tests.blocking"
    id = "blocking"

    def definition(self) -> dict[str, Any]:
        return {"provider": self.provider, "id": self.id}

    async def call(self, request: ModelRequest) -> ModelResponse:
        time.sleep(float(request.messages[-1].content))  # noqa: ASYNC251  this is what it is for
        return ModelResponse("slept")


agent = Agent(name="Blocking", model=BlockingModel())
