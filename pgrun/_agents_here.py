"""The agents that this process has declared, by name: what their runs execute here, and how any run of theirs is cancelled."""

from contextlib import suppress
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from pgrun._agent_declared import Declared
from pgrun._stopping import stop_left_calls
from pgrun.db.postgres import PostgresDb
from pgrun.errors import PgrunError, UsageError
from pgrun.run.definition import AgentDefinition

_registry: dict[str, Declared] = {}


def register(agent: Declared) -> None:
    """From now on its name stands for this agent."""
    _registry[agent.name] = agent


def registered_agents() -> dict[str, Declared]:
    """The agents this process has declared, by name; of two with one name the later."""
    return dict(_registry)


def known_definition(name: str, stored: str | None) -> AgentDefinition | None:
    """What an agent's run executes: the live agent's, with whatever only this process has, such as its key; else what travelled.

    Args:
        name: Of the agent.
        stored: The definition that travelled with the run, as JSON text; None for an agent with tools, known by its name.

    Raises:
        UsageError: What travelled cannot be read.
    """
    agent = _registry.get(name)
    if agent is not None and (None if stored is None else _parsed(stored)) == agent.stored_definition:
        return agent.definition
    return None if stored is None else _stored_definition(stored)


def check_name_is_its_own(agent: Declared) -> None:
    """Refuses a run that a worker of this process, which knows agents with tools by name, would execute with other tools."""
    code = agent.definition.code
    if code and code != _registry[agent.name].definition.code:
        raise UsageError(
            f'another agent with the name "{agent.name}" was declared after this one, with other tools, and workers tell them '
            "apart by name: give each a name of its own, and declare it once"
        )


async def cancel_anywhere(run_id: str) -> bool | None:
    """Cancels a run in whichever database of this process's agents it is; whether it did, None if it is in none."""
    for db in {agent.db for agent in _registry.values() if agent.db is not None}:
        with suppress(PgrunError):
            return await cancel(db, run_id)
    return None


async def cancel(db: PostgresDb, run_id: str) -> bool:
    """Whether the run is cancelled or being cancelled."""
    verbs = (await db.connected()).verbs
    state = await verbs.cancel(run_id)
    if state == "cancelled":  # nobody executes it
        left = await verbs.take_left_calls([*_registry], run_id=run_id)
        await stop_left_calls(verbs, left, known_definition)
    return state in ("cancelled", "cancelling")


@lru_cache(maxsize=256)
def _parsed(definition: str) -> Any:
    return from_json(definition)


@lru_cache(maxsize=256)
def _stored_definition(definition: str) -> AgentDefinition:
    return AgentDefinition.from_json(from_json(definition))
