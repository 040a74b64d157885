"""An agent whose model counts, slowly and aloud; a worker gets it by ``--import support.counting_agent``."""

from typing import Any

import anyio

from pgrun import Agent, PostgresDb, RetryPolicy
from pgrun.models.base import ModelRequest, ModelResponse


class CountingModel:
    """Asked for ``"300 0.01"`` it says three hundred numbers, one every ten milliseconds."""

    provider = "tests.counting"
    id = "counting"

    def definition(self) -> dict[str, Any]:
        return {"provider": self.provider, "id": self.id}

    async def call(self, request: ModelRequest) -> ModelResponse:
        numbers, pause = request.messages[-1].content.split()
        for number in range(int(numbers)):
            request.watch.text(f"{number} ")
            await anyio.sleep(float(pause))
        return ModelResponse(counted(int(numbers)))


def counted(numbers: int) -> str:
    """What it has said in the end."""
    return "".join(f"{number} " for number in range(numbers))


def counting(db: PostgresDb | None = None) -> Agent[str]:
    """The agent; the one of this module has no database, because workers bring their own."""
    return Agent(name="Counting", model=CountingModel(), db=db, retry=RetryPolicy(max_attempts=10, base_delay=0.05))


counting()
