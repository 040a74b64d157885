"""The agent whose model speaks with a clock, as a worker daemon imports it."""

import time
from typing import Any

import anyio

from pgrun import Agent, PostgresDb
from pgrun.models.base import ModelRequest, ModelResponse


class Clock:
    """Asked for ``"100 0.02"`` it tells the time a hundred times, every 20 ms; all processes of a machine share that clock."""

    provider = "benchmarks.clock"
    id = "clock"

    def definition(self) -> dict[str, Any]:
        """Nothing but its name."""
        return {"provider": self.provider, "id": self.id}

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Says tokens of about 20 characters."""
        tokens, pause = request.messages[-1].content.split()
        for _ in range(int(tokens)):
            await anyio.sleep(float(pause))
            request.watch.text(f"{time.monotonic():.6f} ")
        return ModelResponse("done")


def clock_agent(db: PostgresDb | None = None) -> Agent[str]:
    return Agent(name="Clock", model=Clock(), db=db)


clock_agent()
