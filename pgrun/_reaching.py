"""How what a caller holds in hand reaches its run: through the database; agents and tasks say how its row is read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from pgrun.db.awaiting import look_at
from pgrun.db.postgres import PostgresDb
from pgrun.run.base import RunOutput


class Reaches(ABC):
    """The handle of a run, see `RunHandle`. Each submit makes one, so the constructors of subclasses set these themselves."""

    _db: PostgresDb
    _since: float
    """When it had not ended yet, on the clock of `time.monotonic`."""

    @abstractmethod
    def read(self, row: Mapping[str, Any]) -> RunOutput[Any]:
        """The run from its row."""

    async def wait(self, run_id: str, timeout: float | None) -> RunOutput[Any]:
        """The run once it has ended."""
        return self.read(await self._db.wait_for(run_id, timeout, since=self._since))

    async def look(self, run_id: str) -> RunOutput[Any]:
        """The run as it stands."""
        return self.read(await look_at((await self._db.connected()).verbs, run_id))

    async def cancel(self, run_id: str) -> bool:
        """Cancels the run; whether it is or will be."""
        return await self._db.acancel_run(run_id)
