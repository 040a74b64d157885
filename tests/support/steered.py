"""An agent that may be told something at any moment of a run."""

from collections.abc import Awaitable, Callable
from typing import Any

from pgrun import Agent, PostgresDb, RunContext
from pgrun.errors import AttemptError
from pgrun.models.base import ModelRequest, ModelResponse
from support.models import ScriptedModel, calling

LOOK = calling(("look", '{"city": "Rome"}'))


class Interrupted(ScriptedModel):
    """Lets something happen while it is called, at the given calls, before it answers."""

    def __init__(self, *answers: str | ModelResponse | AttemptError) -> None:
        super().__init__(*answers)
        self.meanwhile: dict[int, Callable[[], Awaitable[Any]]] = {}

    async def call(self, request: ModelRequest) -> ModelResponse:
        if happens := self.meanwhile.get(len(self.asked)):
            await happens()
        return await super().call(request)


class Steered:
    """An agent that may be told something at any of its model's calls, and in its tool."""

    def __init__(self, db: PostgresDb, *answers: str | ModelResponse | AttemptError, **options: Any) -> None:
        self.model = Interrupted(*answers)
        self.says_in_tool = ""
        self.agent: Agent[Any] = Agent(name="Steered", model=self.model, tools=[self.look], db=db, **options)

    async def look(self, city: str, run: RunContext) -> str:
        """Looks."""
        if self.says_in_tool:
            await self.agent.asteer(run.run_id, self.says_in_tool)
        return "sun"

    async def answer(self, meanwhile: dict[int, str]) -> Any:
        """What it answers if these things are said to it at these calls of its model."""
        run = await self.agent.arun("Rome?", background=True)
        for number, text in meanwhile.items():
            self.model.meanwhile[number] = lambda text=text: self.agent.asteer(run.run_id, text)  # type: ignore[misc]
        self.run_id = run.run_id
        return await run.aresult(timeout=10)

    def shown(self, number: int) -> list[tuple[str, str]]:
        return [(message.role, message.content) for message in self.model.asked[number].messages]
