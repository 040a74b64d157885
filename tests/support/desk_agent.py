"""An agent whose tools wait for people, or may not be repeated; a worker gets it by ``--import support.desk_agent``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel

from pgrun import Agent, OpenAIResponses, PostgresDb, RunContext, tool


class Receipt(BaseModel):
    order: int
    cents: int


@tool(requires_confirmation=True)
def refund(order: int, run: RunContext) -> str:
    """Pays money back."""
    return _note(run, f"refund {order}")


@tool(requires_user_input=True, user_input_fields=["street"])
def ship(order: int, street: str, run: RunContext) -> str:
    """Sends it once more."""
    return _note(run, f"ship {order} to {street}")


@tool(external_execution=True)
def sign(order: int) -> str:
    """Has it signed."""
    raise AssertionError("called")


@tool(repeat="unsafe")
async def bill(order: int, run: RunContext) -> str:
    """Sends a bill, and comes to no end the first time if the run's metadata says so."""
    noted = _note(run, f"bill {order}")
    if run.metadata.get("hangs") and run.attempt == 1:
        await anyio.sleep_forever()
    return noted


@tool(repeat="idempotent")
def look_up(order: int, run: RunContext) -> str:
    """Looks an order up."""
    return _note(run, f"look up {order}")


def desk(db: PostgresDb | None = None) -> Agent[str]:
    """The agent; the one of this module has no database, because workers bring their own."""
    tools: list[Callable[..., Any]] = [refund, ship, sign, bill, look_up]
    return Agent(name="Desk", model=OpenAIResponses("gpt-5-mini", api_key="test"), tools=tools, db=db)


def _note(run: RunContext, line: str) -> str:
    with Path(run.metadata["file"]).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return f"done: {line}"


desk()
