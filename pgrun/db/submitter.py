"""Calls of one task that come at the same time share a statement.

Group commit: a call that finds none of its kind under way is submitted at once, by a statement of its own; those that come
meanwhile wait for it and go together, in the statement of the first of them. So one alone is as fast as it can be, and a
flood costs one commit per round trip. Runs of a session are not for this: one of them may have to wait for its session.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from pgrun.db._shielding import to_its_end
from pgrun.db.records import NewRun
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseUnavailable, PgrunError

_BATCH = 1000  # runs per statement
_BATCH_BYTES = 4_000_000  # of inputs


@dataclass(slots=True, eq=False)
class _Call:
    """One submit; its turn comes when it has been written, or is the first of those to be written next."""

    run_id: str
    data: bytes
    turn: anyio.Event = field(default_factory=anyio.Event)
    is_written: bool = False
    error: PgrunError | None = None


class Submitter:
    """The calls that one event loop submits."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._behind: dict[int, list[_Call]] = {}  # per kind that is under way, those that wait for it

    async def submit(self, like: NewRun, run_id: str, data: bytes) -> None:
        """Inserts a run like this one with an id and an input (JSON) of its own; returns when it is committed.

        Args:
            like: The same object for all that may go together; without a session.
            run_id: A new one.
            data: JSON.

        Raises:
            PgrunError: Why it could not be inserted.
        """
        behind = self._behind.get(id(like))
        if behind is None:
            self._behind[id(like)] = []
            try:
                await self._verbs.submit_call(like, run_id, data)
            finally:
                self._call_next(like)
            return
        call = _Call(run_id, data)
        behind.append(call)
        await self._wait(like, behind, call)
        if not call.is_written:
            await to_its_end(self._write_next(like, behind))
        if call.error is not None:
            raise call.error

    async def _wait(self, like: NewRun, behind: list[_Call], call: _Call) -> None:
        try:
            await call.turn.wait()
        except BaseException:
            if call not in behind:  # it is being written
                await to_its_end(call.turn.wait())
            else:
                behind.remove(call)
                if call.turn.is_set():
                    self._call_next(like)
            raise

    async def _write_next(self, like: NewRun, behind: list[_Call]) -> None:
        calls = _take(behind)
        try:
            await self._write(like, calls)
        finally:
            for call in calls:
                call.is_written = True
                call.turn.set()
            self._call_next(like)

    async def _write(self, like: NewRun, calls: Sequence[_Call]) -> None:
        try:
            inputs = b"[%b]" % b",".join(call.data for call in calls)
            await self._verbs.submit_calls(like, [call.run_id for call in calls], inputs)
        except DatabaseUnavailable as error:
            for call in calls:
                call.error = DatabaseUnavailable(str(error))
        except PgrunError as error:
            if len(calls) == 1:
                calls[0].error = error
                return
            for call in calls:  # one of them may be what the database does not accept
                await self._write(like, [call])

    def _call_next(self, like: NewRun) -> None:
        if behind := self._behind[id(like)]:
            behind[0].turn.set()
        else:
            del self._behind[id(like)]


def _take(behind: list[_Call]) -> list[_Call]:
    weight = count = 0
    for call in behind[:_BATCH]:
        weight += len(call.data)
        if count and weight > _BATCH_BYTES:
            break
        count += 1
    taken = behind[:count]
    del behind[:count]
    return taken
