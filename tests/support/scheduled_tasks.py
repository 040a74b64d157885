"""A task with a schedule: a module, so that worker processes can import it."""

from pgrun import PostgresDb

_db = PostgresDb("postgresql://localhost/nothing", worker="external")  # workers bring their own


@_db.task
async def tick() -> None:
    """Does nothing."""


_db.declare_schedule(tick, every=0.1, missed="all")
