"""A database as one event loop uses it, and what a `PostgresDb` is to its methods, wherever they stand."""

from abc import ABC, abstractmethod
from typing import Literal

from pgrun.db._address import Address
from pgrun.db._runtime import Runtime
from pgrun.db.following import Following
from pgrun.db.submitter import Submitter
from pgrun.db.verbs import Verbs
from pgrun.db.waiting import Waiting
from pgrun.settings import Settings

WorkerMode = Literal["auto", "embedded", "external"]


class Connected:
    """A `PostgresDb` in use by one event loop.

    Attributes:
        hosted: Queues that this process serves itself.
        waits: Whether the service for waiters runs; it starts with the first of them.
        following: The readers of streams; their service starts with the first of them, too.
    """

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self.runtime = runtime
        self.verbs = Verbs(runtime)
        self.submitter = Submitter(self.verbs)
        self.waiting = Waiting(runtime, settings)
        self.hosted = set[str]()
        self.waits = False
        self.following: Following | None = None


class Connects(ABC):
    """What the methods of `PostgresDb` build on; see there."""

    schema: str
    settings: Settings
    worker: WorkerMode
    listen_address: Address | None

    @abstractmethod
    async def connected(self) -> Connected:
        """The pool, verbs and waiters of the running event loop."""

    async def _verbs(self) -> Verbs:
        return (await self.connected()).verbs
