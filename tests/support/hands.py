"""A worker by hand: registered like any other, and doing nothing that the test does not tell it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pgrun import PostgresDb
from pgrun._ids import new_run_id
from pgrun.db.records import Claimed, Ending, Look, NewRun, WorkerCard
from pgrun.db.verbs import Verbs
from support.database import Conn


@dataclass(frozen=True)
class Hand:
    """One worker id and what it serves."""

    verbs: Verbs
    worker_id: str
    queues: Sequence[str]
    names: Sequence[str]

    async def claim(self, slots: int = 100, *, yields: bool = False) -> list[Claimed]:
        look = await self.verbs.claim(self.worker_id, self.queues, self.names, slots, yields=yields, horizon=10)
        return look.claimed

    async def claim_woken(self, slots: int = 100) -> list[Claimed]:
        """As after a notification for the first of its queues."""
        return await self.verbs.claim_woken(self.worker_id, self.queues[0], self.names, slots)

    async def claim_one(self) -> Claimed:
        (claimed,) = await self.claim(1)
        return claimed

    async def next_due(self, horizon: float = 10) -> float | None:
        look = await self.verbs.claim(self.worker_id, self.queues, self.names, 1, yields=False, horizon=horizon)
        assert not look.claimed
        return look.next_due

    async def claim_limited(self, slots: int = 100, *, queue: str = "") -> list[Claimed]:
        """From a queue with limits or keys; by default from the first of its queues."""
        return (await self.look_limited(slots, queue=queue)).claimed

    async def look_limited(self, slots: int = 100, *, queue: str = "") -> Look:
        return await self.verbs.claim_limited(self.worker_id, queue or self.queues[0], self.names, slots, yields=False)

    async def complete(self, *claimed: Claimed) -> set[str]:
        return await self.verbs.finish([completed(run) for run in claimed])


async def hire(
    db: PostgresDb,
    *,
    mode: str = "daemon",
    queues: Sequence[str] = ("default",),
    names: Sequence[str] = (),
    lease: float = 600.0,
) -> Hand:
    """Registers a worker whose lease outlasts the test."""
    hand = Hand((await db.connected()).verbs, str(uuid4()), queues, names)
    card = WorkerCard(worker_id=hand.worker_id, mode=mode, host="here", pid=1, version="0", concurrency=1, lease=lease)
    await hand.verbs.register_worker(card, queues, names)
    return hand


def lose(conn: Conn, hand: Hand) -> None:
    """Lets a lease run out a second ago. It is made short too: a server that has just started spares whoever has a long one."""
    conn.execute(
        "update pgrun.workers set lease_until = now() - interval '1 s', lease = interval '1 ms' where worker_id = %s",
        [hand.worker_id],
    )


async def submit(db: PostgresDb, **columns: Any) -> str:
    """Submits a run that needs no code in particular and returns its id."""
    run = a_run(**columns)
    await db.submit(run)
    return run.run_id


def a_run(**columns: Any) -> NewRun:
    return NewRun(**{"run_id": new_run_id(), "kind": "task", "name": "noop", "input": {}, **columns})


def completed(claimed: Claimed, output: Any = "done") -> Ending:
    return Ending(claimed, "completed", {"total_tokens": 7}, output=output, content_type="str")


def failed(claimed: Claimed, message: str = "broke") -> Ending:
    return Ending(claimed, "error", {}, error={"type": "ToolFailed", "message": message})


def cancelled(claimed: Claimed) -> Ending:
    return Ending(claimed, "cancelled", {})
