"""A worker inside the process that submits runs: always in mode embedded, in mode auto while no live daemon serves them."""

import logging

import anyio

from pgrun._jitter import uniform
from pgrun.db.postgres import PostgresDb
from pgrun.errors import DatabaseError
from pgrun.run.concurrency import get_background_max_concurrency
from pgrun.worker.registration import names_here
from pgrun.worker.worker import Worker

_log = logging.getLogger("pgrun.worker")

_LOOK_FOR_DAEMONS = 5.0  # seconds; whether the worker may claim is decided anew at each claim, this only saves its cost


async def serve_embedded(db: PostgresDb, queues: set[str]) -> None:
    """Executes the runs of these queues, which may grow, until it is cancelled; then gives back what it holds."""
    while True:
        try:
            if db.worker == "auto" and await _all_served(db, queues):
                await _pause()
                continue
            most = get_background_max_concurrency()
            async with Worker(db, queues=queues, concurrency=most, mode="embedded") as worker:
                while db.worker != "auto" or worker.running or not await _all_served(db, queues):
                    await _pause()
        except DatabaseError as error:
            _log.warning("the embedded worker is put off: %s", error)
            await _pause()


async def _all_served(db: PostgresDb, queues: set[str]) -> bool:
    """Whether this process is needed nowhere: not for these queues, and not for what only those can execute who imported it."""
    verbs, names = (await db.connected()).verbs, names_here()
    return all([await verbs.is_served(queue, names) for queue in queues])


async def _pause() -> None:
    await anyio.sleep(_LOOK_FOR_DAEMONS * uniform(0.8, 1.2))
