"""What a worker says of itself in the database: who it is, which queues it serves, and what it can execute."""

import os
import socket
from collections.abc import Collection, Sequence
from importlib.metadata import version
from uuid import uuid4

from pgrun._agents_here import registered_agents
from pgrun.db.records import WorkerCard
from pgrun.db.verbs import Verbs
from pgrun.task import registered_tasks


class Registration:
    """The registration of one worker, which is another one each time it begins.

    Args:
        verbs: The database.
        serves: Queues; the collection may grow.
        mode: Embedded, or a daemon.
        concurrency: Most runs at once.
        lease: Seconds for which it is believed to live after each heartbeat.

    Attributes:
        worker_id: The id under which it is registered.
        queues: Those it is registered for.
        names: What it has said that it can execute although it does not travel with the run.
    """

    def __init__(self, verbs: Verbs, serves: Collection[str], *, mode: str, concurrency: int, lease: float) -> None:
        self._verbs = verbs
        self._serves = serves
        self._mode = mode
        self._concurrency = concurrency
        self._lease = lease
        self.worker_id = ""
        self.queues: Sequence[str] = ()
        self.names: Sequence[str] = ()

    @property
    def is_current(self) -> bool:
        """Whether nothing has been added since it was written."""
        return names_here() == self.names and tuple(self._serves) == self.queues

    async def begin(self) -> None:
        """Registers the worker as a new one."""
        self.worker_id = str(uuid4())
        await self.write()

    async def write(self) -> None:
        """Says what it serves and knows by now."""
        queues, names = tuple(self._serves), names_here()
        card = WorkerCard(
            worker_id=self.worker_id,
            mode=self._mode,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("pgrun"),
            concurrency=self._concurrency,
            lease=self._lease,
        )
        await self._verbs.register_worker(card, queues, names)
        self.queues, self.names = queues, names


def names_here() -> list[str]:
    """What this process can execute although it does not travel with the run: tasks, and agents with tools."""
    agents = (name for name, agent in registered_agents().items() if not agent.definition.travels)
    return [*agents, *registered_tasks()]
