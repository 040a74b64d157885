"""The children of a run in the database: submitted with an id that every attempt finds again, and looked at when it goes on."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID, uuid5

from pgrun.agent import Agent
from pgrun.db._connection import Row
from pgrun.db.records import Claimed, NewRun
from pgrun.db.verbs import Verbs
from pgrun.run.base import RunFailure
from pgrun.run.children import AgentTool, Answered, Children, shown
from pgrun.run.metrics import RunMetrics
from pgrun.worker.patience import patiently

Submit = Callable[[NewRun], Awaitable[datetime | None]]
"""Returns None if a run with this id was there before."""

_CHILDREN = UUID("5f0e2b1c-8a64-5c57-9d0b-6d3a4f7c1e92")
"""The name space of their ids."""


class StoredChildren(Children):
    """The children of a claimed run.

    Args:
        verbs: The database.
        submit: Submits a run there.
        claimed: Their parent.
    """

    def __init__(self, verbs: Verbs, submit: Submit, claimed: Claimed) -> None:
        self._verbs = verbs
        self._submit = submit
        self._claimed = claimed

    async def ask(self, tool: AgentTool, request: str, key: str) -> Answered | None:
        """Submits the question unless an attempt has done so before; see `Children.ask`."""
        agent = tool.agent
        assert isinstance(agent, Agent), "as_tool gave itself"
        run_id = str(uuid5(_CHILDREN, key))
        run = agent.child(request, run_id=run_id, parent_run_id=self._claimed.run_id, priority=self._claimed.priority)
        if await patiently(self._claimed, "child", lambda: self._submit(run)) is not None:
            return None
        row = await patiently(self._claimed, "child", lambda: self._verbs.get(run_id))
        return None if row is None or row["finished_at"] is None else _answered(row)


def _answered(row: Row) -> Answered:
    metrics = RunMetrics.model_validate(row["metrics"]).with_children()
    if row["status"] == "completed":
        return Answered(shown(row["output"]), None, metrics)
    failure = RunFailure.model_validate(row["error"]) if row["error"] else None
    return Answered(None, f"{row['name']} gave no answer: {failure or row['status']}", metrics)
