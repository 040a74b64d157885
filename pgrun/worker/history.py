"""What was said in the session of a run before it, for an agent that is to remember."""

from collections.abc import Awaitable

from pgrun.db._connection import Row
from pgrun.db.records import Claimed
from pgrun.db.verbs import Verbs
from pgrun.run.conversation import Past
from pgrun.run.definition import AgentDefinition
from pgrun.worker.patience import patiently


async def read_history(verbs: Verbs, claimed: Claimed, definition: AgentDefinition) -> list[Past]:
    """The last runs of the session that the agent is to remember, the earliest first."""
    session_id, runs, with_steps = claimed.session_id, definition.history_runs, definition.add_tools_to_history
    if not runs or session_id is None:
        return []

    def read() -> Awaitable[list[Row]]:
        return verbs.history(session_id, before=claimed.run_id, runs=runs, with_steps=with_steps)

    return [_past(row) for row in await patiently(claimed, "history", read)]


def _past(row: Row) -> Past:
    said = [message["content"] for message in row["steering"] or ()]
    steps = [(kind, data) for kind, data in row["steps"] or ()]
    return Past(row["input"], row["output"], row["completed"], said, steps, row["last_answer"])
