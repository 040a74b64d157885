"""How a caller hears of runs: that they have ended, and what happens to them.

A service of the event loop waits on behalf of all who wait, and one reads on behalf of all readers; each starts with the first.
"""

from functools import partial

import anyio

from pgrun.db import listener
from pgrun.db._connection import Row
from pgrun.db.connected import Connected, Connects
from pgrun.db.following import Following, Reader
from pgrun.db.waiting import check_timeout, not_found
from pgrun.errors import WaitTimeout
from pgrun.run.base import output_from_row


class Hears(Connects):
    """These methods of `PostgresDb`."""

    async def wait_for(self, run_id: str, timeout: float | None, *, or_paused: bool = False, since: float = 0.0) -> Row:
        """The row of a run once it has ended; it had not yet at `since`, on the clock of `time.monotonic`.

        With `or_paused` also once it waits for a person.

        Raises:
            WaitTimeout: It has not ended after `timeout` seconds; the message says what it waits for.
            RunNotFound: There is no such run.
        """
        rows = await self._wait([run_id], timeout, first=False, or_paused=or_paused, since=since)
        return rows[run_id]

    async def open_stream(self, run_id: str, after: int) -> Reader:
        """A reader of the events of a run that come after one; from now on the run tells what happens to it.

        It has to be closed.

        Raises:
            RunNotFound: There is no such run.
        """
        connected = await self.connected()
        await connected.verbs.watch(run_id)
        return (connected.following or self._start_following(connected)).open(run_id, after)

    async def _wait(
        self, run_ids: list[str], timeout: float | None, *, first: bool, or_paused: bool = False, since: float = 0.0
    ) -> dict[str, Row]:
        check_timeout(timeout)
        connected = await self._with_waiters()
        with anyio.move_on_after(timeout):
            return await connected.waiting.wait(run_ids, first=first, or_paused=or_paused, since=since)
        # One last look: with timeout=0, or when the end and the time-out coincide, the row decides.
        rows = await connected.runtime.fetch(
            "look_at_runs", {"run_ids": run_ids, "or_paused": run_ids if or_paused else []}
        )
        if missing := next((str(row["asked"]) for row in rows if row["run_id"] is None), None):
            raise not_found(missing)
        ended = {str(row["asked"]): row for row in rows}
        late = next((run_id for run_id in run_ids if run_id not in ended), None)
        if late is None or (first and ended):
            return ended
        raise await self._timed_out(connected, late, timeout)

    async def _with_waiters(self) -> Connected:
        connected = await self.connected()
        if not connected.waits:
            self._start_waiting(connected)
        return connected

    def _start_waiting(self, connected: Connected) -> None:
        connected.waits = True
        address = connected.runtime.address

        async def serve_waiters() -> None:
            leave = listener.subscribe(self.listen_address or address, address, self.schema, connected.waiting)
            try:
                await connected.waiting.serve()
            finally:
                leave()

        connected.runtime.start_service(serve_waiters, "pgrun waiters")

    def _start_following(self, connected: Connected) -> Following:
        address = connected.runtime.address
        subscribe = partial(listener.subscribe_to_streams, self.listen_address or address, address, self.schema)
        connected.following = Following(connected.runtime, connected.verbs, self.settings, subscribe)
        connected.runtime.start_service(connected.following.serve, "pgrun readers")
        return connected.following

    async def _timed_out(self, connected: Connected, run_id: str, timeout: float | None) -> WaitTimeout:
        row = await connected.verbs.get(run_id)
        run = output_from_row(row, row["output"], None) if row else None
        state = f"is still {row['status']}" if row else "does not exist"
        reason = ""
        if run and run.is_paused:
            reason = f": it waits for a person ({', '.join(each.name for each in run.active_requirements)})"
        elif row and row["held"]:
            reason = f" (held: {row['held']})"
        elif row and row["error"]:
            reason = f"; its last error: {row['error'].get('message')}"
        return WaitTimeout(f"run {run_id} {state} after {timeout:g} s{reason}", run_id=run_id, run=run)
