"""Streams as callers see them: the rows of a run's events become `RunEvent`s, and the pieces of its answer a whole."""

from collections.abc import AsyncGenerator

from pgrun.db.postgres import PostgresDb
from pgrun.db.records import Place
from pgrun.run.event import EventReader, RunEvent, Shape


async def read_events(db: PostgresDb, run_id: str, after: int, shape: Shape) -> AsyncGenerator[RunEvent, None]:
    """The events of a run that come after one, until its end or a pause.

    Raises:
        RunNotFound: There is no such run.
        DatabaseUnavailable: The database was lost and did not come back in time.
    """
    reader = await db.open_stream(run_id, after)
    try:
        verbs = (await db.connected()).verbs
        events = EventReader(run_id, shape, await verbs.answer_so_far(Place(run_id, after)) if after else ())
        while page := await reader.next_page():
            for row in page:
                yield events.read(*row)
    finally:
        reader.close()
