"""How runs get into the database: new ones, and those that people let go on; then this process may have to execute them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from pgrun import _hosting
from pgrun.db.connected import Connected, Connects
from pgrun.db.lending import Lent
from pgrun.db.placing import knows_queue, place
from pgrun.db.records import NewRun, Placed
from pgrun.errors import UsageError


class Submitting(Connects):
    """These methods of `PostgresDb`."""

    async def submit(self, run: NewRun) -> datetime | None:
        """Inserts a run and, where this process is to execute it, starts the embedded worker.

        Returns:
            When it was created; None if a run with this id was there before.

        Raises:
            UsageError: The queue does not exist.
        """
        connected = await self._takes(run.queue)
        created_at = await connected.verbs.submit(run)
        self._take_in(connected, run.queue)
        return created_at

    async def submit_call(self, like: NewRun, run_id: str, data: bytes) -> None:
        """The same for a call of a task, with a new id and its input (JSON); calls that come at the same time go together."""
        connected = await self._takes(like.queue)
        await connected.submitter.submit(like, run_id, data)
        self._take_in(connected, like.queue)

    async def submit_calls(self, like: NewRun, run_ids: Sequence[str], inputs: bytes) -> None:
        """The same for many calls of a task, with a JSON array of their inputs: all of them, or none."""
        connected = await self._takes(like.queue)
        await connected.verbs.submit_calls(like, run_ids, inputs)
        self._take_in(connected, like.queue)

    async def place(
        self, like: NewRun, run_ids: Sequence[str], inputs: bytes, keys: Sequence[str] = ()
    ) -> list[Placed]:
        """The same for runs under terms: with an input each (a JSON array) and a key each, or none.

        On the connection that the terms name, if they do.

        Returns:
            In the order of the ids which run each of them is now: a new one, or the one that holds its key.
        """
        assert like.terms is not None
        if like.terms.key_scope and not keys:
            raise UsageError("key_scope=, key_period= and on_duplicate= say what holds for a key; give key=, too")
        if like.terms.conn is None:
            connected = await self._takes(like.queue)
            placed = await connected.verbs.place(like, run_ids, inputs, keys)
        else:
            connected = await self.connected()
            lent = Lent(like.terms.conn, schema=self.schema, shown=connected.runtime.address.shown)
            if not await connected.verbs.knows(like.queue) and not await knows_queue(lent, like.queue):
                raise self._unknown(like.queue)
            placed = await place(lent, like, run_ids, inputs, keys)
        self._take_in(connected, like.queue)
        return placed

    async def approve(self, run_id: str, decisions: Iterable[Mapping[str, Any]], *, queue: str) -> None:
        """Decides on calls that a paused run waits for; see `Verbs.approve`. This process may have to execute it then.

        Raises:
            UsageError: A decision does not fit, or has been taken otherwise; those before it stand.
        """
        connected = await self.connected()
        for decision in decisions:
            await connected.verbs.approve(run_id, decision)
        self._take_in(connected, queue)

    async def _takes(self, queue: str) -> Connected:
        """Where to submit to that queue."""
        connected = await self.connected()
        if not await connected.verbs.knows(queue):
            raise self._unknown(queue)
        return connected

    def _unknown(self, queue: str) -> UsageError:
        return UsageError(
            f'unknown queue "{queue}": start a worker that serves it (pgrun worker --queues {queue}), '
            f"or declare it: insert into {self.schema}.queues (queue) values ('{queue}')"
        )

    def _take_in(self, connected: Connected, queue: str) -> None:
        """After a submit to `queue`: is it this process that has to execute it?"""
        if self.worker != "external" and queue not in connected.hosted:
            self._host(connected, queue)

    def _host(self, connected: Connected, queue: str) -> None:
        if _hosting.embedded_worker is None:
            return
        connected.hosted.add(queue)
        if len(connected.hosted) == 1:
            connected.runtime.start_service(
                partial(_hosting.embedded_worker, self, connected.hosted), "pgrun embedded worker"
            )
