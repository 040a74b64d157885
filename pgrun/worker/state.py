"""The state of the session as a run finds it, and what an agent was told beside its input."""

from typing import Any

from pydantic_core import from_json

from pgrun.db.records import Claimed
from pgrun.db.verbs import Verbs
from pgrun.run.definition import AgentDefinition
from pgrun.run.journal import Journal
from pgrun.run.state import beginning
from pgrun.worker.patience import patiently


def told_to(claimed: Claimed) -> dict[str, Any]:
    """What a run of an agent was told beside its input, see `jobs.context`."""
    told: dict[str, Any] = from_json(claimed.context) if claimed.context else {}
    return told


async def begin_state(verbs: Verbs, claimed: Claimed, definition: AgentDefinition, journal: Journal) -> None:
    """Reads it, and merges into it what the agent and the run begin with: once, however many attempts there are."""
    session_id, given = claimed.session_id, told_to(claimed).get("session_state", {})
    if session_id is None or not (definition.uses_state or given):
        return
    journal.state = await patiently(claimed, "session_state", lambda: verbs.session_state(session_id))
    await journal.begin_state(beginning(definition.session_state or {}, given, journal.state))
