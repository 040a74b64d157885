"""pgrun as one more peer of a harness that measures job queues side by side, each in a process of its own.

The harness has a module `common` with `Peer` and `main`: `setup` once per database; `open`, `enqueue`, `enqueue_many`, `lane` and
`call` in a client; `prepare` and `work` in a worker, whose handler does nothing but `rec.hit(i)`.
"""

import asyncio
from typing import Any

from common import Peer, main  # type: ignore[import-not-found]

from pgrun import PostgresDb, Worker


class Pgrun(Peer):  # type: ignore[misc]
    """Single submits, bulk submits, typed results, and a worker with its defaults but for the concurrency."""

    name = "pgrun"

    async def setup(self) -> None:
        async with self._database() as db:
            await db.amigrate()

    async def open(self) -> None:
        self._db = await self._database().__aenter__()
        self._task = self._declare(self._db, None)

    async def close(self) -> None:
        await self._db.aclose()

    async def enqueue(self, i: int) -> object:
        return await self._task.asubmit(i)

    async def enqueue_many(self, ids: list[int]) -> None:
        step = self.cfg.get("bulk_batch", 10_000)
        for start in range(0, len(ids), step):
            await self._task.asubmit_many([{"i": i} for i in ids[start : start + step]])

    async def call(self, i: int) -> None:
        await (await self._task.asubmit(i)).aresult()

    async def prepare(self, rec: Any) -> None:
        self._db = await self._database().__aenter__()
        self._declare(self._db, rec)

    async def work(self, stop: asyncio.Event) -> None:
        async with Worker(self._db, concurrency=self.cfg.get("concurrency", 1000)):
            await stop.wait()
        await self._db.aclose()

    def _database(self) -> PostgresDb:
        return PostgresDb(self.dsn, worker="external")

    def _declare(self, db: PostgresDb, rec: Any) -> Any:
        @db.task
        async def noop(i: int) -> int:
            rec.hit(i)
            return i

        return noop


if __name__ == "__main__":
    main(Pgrun)
