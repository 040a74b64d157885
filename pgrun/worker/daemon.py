"""`pgrun worker`: a worker that lives until it is told to go."""

import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Collection

import anyio
from anyio.lowlevel import current_token

from pgrun.db.postgres import PostgresDb
from pgrun.models._openai_client import preload
from pgrun.worker.worker import Worker

_log = logging.getLogger("pgrun.worker")

_LAST_WORD = 3.0  # seconds after a second signal until the process ends, whatever it still waits for


async def serve(db: PostgresDb, *, queues: Collection[str], concurrency: int, grace: float) -> int:
    """Executes runs until SIGTERM or SIGINT, then drains; returns the exit code.

    After the first signal it claims nothing more and finishes what it holds for up to `grace` seconds, then gives the rest back
    uncounted. A second signal ends that at once.
    """
    _log.debug("the event loop is %s's", type(current_token().native_token).__module__)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with db, Worker(db, queues=queues, concurrency=concurrency, grace=grace) as worker:
            _log.info(
                "worker %s serves %s of %r, %s runs at once", worker.worker_id, ", ".join(queues), db, concurrency
            )
            await preload()
            _log.info("%s: finishing %s runs, at most %g s", await _next(signals), worker.running, grace)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_at_once, signals, tasks.cancel_scope)
                await worker.drain()
                tasks.cancel_scope.cancel()
            if worker.running:
                _log.warning("giving back %s runs", worker.running)
    _log.info("worker %s has stopped", worker.worker_id)
    return 0


async def _next(signals: AsyncIterator[signal.Signals]) -> str:
    async for received in signals:
        return received.name
    raise AssertionError("unreachable: the receiver never ends")


async def _stop_at_once(signals: AsyncIterator[signal.Signals], drain: anyio.CancelScope) -> None:
    _log.warning("%s again: stopping at once", await _next(signals))
    last_word = threading.Timer(_LAST_WORD, os._exit, [1])
    last_word.daemon = True
    last_word.start()
    drain.cancel()
