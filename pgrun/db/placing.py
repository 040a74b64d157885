"""Submits runs under terms: with keys, tags, moments, or in somebody else's transaction. Plain ones have faster statements."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic_core import to_json

from pgrun.db.records import NewRun, Placed
from pgrun.errors import UsageError

_JSONB = 2**28 - 1  # bytes, see JENTRY_OFFLENMASK in Postgres's jsonb.h

_COLUMNS = (
    *(
        "kind",
        "name",
        "queue",
        "session_id",
        "session_table",
        "multitask",
        "parent_run_id",
        "priority",
        "delay",
        "max_attempts",
    ),
    *("definition", "output_schema", "content_type", "streams", "context", "concurrency_key", "weight"),
)


class Statements(Protocol):
    """Whatever executes the files of ``sql/queries``: our own connections, or one that was lent to us."""

    async def fetch_tuples(self, name: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows that a statement returns."""


async def place(
    statements: Statements, like: NewRun, run_ids: Sequence[str], inputs: bytes, keys: Sequence[str]
) -> list[Placed]:
    """Submits runs like this one, with ids and inputs (a JSON array) of their own, and with a key each or none at all.

    Returns in the order of the ids which run each of them is now.
    """
    params = {"common": _common(like), "run_ids": [*run_ids], "keys": [*keys], "inputs": as_inputs(inputs)}
    return [Placed(*row) for row in await statements.fetch_tuples("submit_runs", params)]


def as_inputs(data: bytes) -> str:
    """JSON as text.

    Raises:
        UsageError: It is more than jsonb can hold. The server would take minutes to say so.
    """
    if len(data) > _JSONB:
        raise UsageError(
            f"{len(data) / 1e6:,.0f} MB of input in one call; Postgres's jsonb holds 268. "
            "Submit fewer runs in one call (several calls in a transaction of yours, with conn=, are one too), "
            "or store large data elsewhere and give the run its place"
        )
    return data.decode()


async def knows_queue(statements: Statements, queue: str) -> bool:
    """Whether the queue exists."""
    ((found,),) = await statements.fetch_tuples("find_queue", {"queue": queue})
    return bool(found)


def _common(like: NewRun) -> str:
    assert like.terms is not None
    columns = {name: value for name in _COLUMNS if (value := getattr(like, name)) is not None}
    return to_json({**columns, "metadata": {**like.metadata}, **like.terms.columns()}).decode()
