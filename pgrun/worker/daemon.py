"""`pgrun worker`: a worker that lives until it is told to go."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Collection

import anyio
from anyio.lowlevel import current_token

from pgrun.db.postgres import PostgresDb
from pgrun.models._openai_client import preload
from pgrun.worker.leash import Leash
from pgrun.worker.orders import LAST_WORD, Orders, Urgency
from pgrun.worker.worker import Worker

_log = logging.getLogger("pgrun.worker")


async def serve(
    db: PostgresDb, *, queues: Collection[str], concurrency: int, grace: float, leash: Leash | None = None
) -> int:
    """Executes runs until SIGTERM or SIGINT, then drains; returns the exit code.

    After the first signal it claims nothing more and finishes what it holds for up to `grace` seconds, then gives the rest back
    uncounted. A second signal ends that at once. On a `leash`, its supervisor may ask for both as well, and the end of the
    supervisor counts as a first signal.
    """
    worker = Worker(db, queues=queues, concurrency=concurrency, grace=grace)
    orders = Orders()
    _log.debug("the event loop is %s's", type(current_token().native_token).__module__)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with db:
            if leash:
                leash.follow(orders, (await db.connected()).runtime.call_soon)
            async with worker:
                _log.info(
                    "worker %s serves %s of %r, %s runs at once", worker.worker_id, ", ".join(queues), db, concurrency
                )
                if leash:
                    leash.say_ready()
                await preload()
                gc.freeze()  # what is imported stays: no collection need look at it again, nor the one at the exit
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(orders.heed, signals)
                    await _drain(worker, orders)
                    tasks.cancel_scope.cancel()
                if worker.running:
                    _log.warning("giving back %s runs", worker.running)
    _log.info("worker %s has stopped", worker.worker_id)
    return 0


async def _drain(worker: Worker, orders: Orders) -> None:
    """Waits for the order to drain, and drains until it is done or the order to stop comes."""
    reason = await orders.at_least(Urgency.DRAIN)
    _log.info("%s: finishing %s runs, at most %g s", reason, worker.running, worker.grace)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_at_once, orders, tasks.cancel_scope)
        await worker.drain()
        tasks.cancel_scope.cancel()


async def _stop_at_once(orders: Orders, drain: anyio.CancelScope) -> None:
    _log.warning("%s: stopping at once", await orders.at_least(Urgency.STOP))
    last_word = threading.Timer(LAST_WORD, os._exit, [1])
    last_word.daemon = True
    last_word.start()
    drain.cancel()
