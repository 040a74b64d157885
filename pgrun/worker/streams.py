"""The streams of a worker's runs on their way to the database, and their endings behind them.

An attempt remembers what it tells. When somebody reads along, from the start or only now, all of it is written, from the
attempt's beginning on and then as it comes: the first event at once, those that come within the next milliseconds together, those
of all runs in one statement. The run waits for nobody; should the database be away, pieces of text grow together meanwhile. Its
ending goes to the recorder when its events are written: whoever sees the end has seen everything.
"""

import logging
import time
from collections.abc import Collection

import anyio

from pgrun.db.records import Claimed, Ending, Told
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseUnavailable
from pgrun.worker.attempt_stream import AttemptStream
from pgrun.worker.recorder import Recorder

_log = logging.getLogger("pgrun.worker")

_GATHER = 0.015  # seconds between writes: tens a second, however many tokens and runs
_RUNS = 200  # per statement, which is what fits into a notification
_BYTES = 1_000_000  # of events per statement, about
_REMEMBERED_WANTS = 1000
_LOCKED = 0.05  # seconds between tries while nothing can be written because somebody has locked the rows
_PAUSE = 1.0  # seconds between tries while the database is away


class Streams:
    """The streams of one worker's attempts.

    Args:
        verbs: The database.
        recorder: Takes the endings of runs whose events are written.
    """

    def __init__(self, verbs: Verbs, recorder: Recorder) -> None:
        self._verbs = verbs
        self._recorder = recorder
        self._open: dict[tuple[str, int], AttemptStream] = {}  # by run_id and fence
        self._waiting: dict[AttemptStream, None] = {}  # those with something to write, the longest waiting first
        self._wanted: dict[str, None] = {}  # runs that somebody wants to read, and that may be on their way to us
        self._arrived = anyio.Event()
        self._hurry = anyio.Event()
        self._written = anyio.Event()
        self._is_patient = True
        self._closing = False

    def open(self, claimed: Claimed) -> AttemptStream:
        """The stream of an attempt that begins."""
        stream = self._open[claimed.run_id, claimed.fence] = AttemptStream(claimed, self._notice)
        if claimed.run_id in self._wanted:
            stream.want()
        return stream

    def want(self, run_ids: Collection[str]) -> None:
        """Somebody wants to read these runs, of this worker or of others."""
        self._wanted.update(dict.fromkeys(run_ids))
        for stream in [each for each in self._open.values() if each.claimed.run_id in run_ids]:
            stream.want()
        while len(self._wanted) > _REMEMBERED_WANTS:
            del self._wanted[next(iter(self._wanted))]

    def finish(self, ending: Ending) -> None:
        """Hands an ending to the recorder as soon as the events of the run are written; returns at once."""
        stream = self._open.pop((ending.claimed.run_id, ending.claimed.fence), None)  # none of a task
        if stream is None or not stream.waits:
            self._recorder.finish(ending)
        else:
            stream.ending = ending
            self._hurry.set()

    async def settle(self, claimed: Claimed) -> None:
        """Returns when the events of a run are written whose attempt has ended."""
        stream = self._open.pop((claimed.run_id, claimed.fence), None)
        self._hurry.set()
        while stream is not None and stream.waits:
            await self._written.wait()

    def drop(self, claimed: Claimed) -> None:
        """Forgets the events of a run that others see to now."""
        if stream := self._open.pop((claimed.run_id, claimed.fence), None):
            stream.forget()
            self._waiting.pop(stream, None)

    def lose_patience(self) -> None:
        """From now on nothing waits for a database that is away: the worker leaves."""
        self._is_patient = False

    def close(self) -> None:
        """Lets `write_forever` return when everything is written, or given up; nothing may come any more."""
        self._closing = True
        self._arrived.set()

    async def write_forever(self) -> None:
        """Writes until it is closed, whoever cancels it; then lets the recorder go, too."""
        with anyio.CancelScope(shield=True):
            try:
                while self._waiting or not self._closing:
                    if self._waiting:
                        await self._write_next()
                    else:
                        self._arrived = anyio.Event()
                        await self._arrived.wait()
            finally:
                self._recorder.close()

    async def _write_next(self) -> None:
        self._hurry = anyio.Event()
        next_at = time.monotonic() + _GATHER
        await self._write([*self._waiting][:_RUNS])
        for stream in [each for each in self._waiting if not each.waits]:
            del self._waiting[stream]
            if stream.ending is not None:
                self._recorder.finish(stream.ending)
        written, self._written = self._written, anyio.Event()
        written.set()
        with anyio.move_on_after(next_at - time.monotonic()):
            await self._hurry.wait()

    def _notice(self, stream: AttemptStream) -> None:
        self._waiting[stream] = None
        self._arrived.set()

    async def _write(self, streams: list[AttemptStream]) -> None:
        try:
            told = await self._take(streams)
            held = await self._verbs.write_events(told.values())
        except DatabaseUnavailable as error:
            await self._put_off(streams, error)
        except Exception as error:  # a value that the database refuses, or a fault of ours: it must not end the worker
            await self._write_singly(streams, error)
        else:
            for stream in told:
                self._settle_one(stream, held.get(stream.claimed.run_id))
            if not any(held.values()) and self._waiting:
                await anyio.sleep(_LOCKED)

    async def _take(self, streams: list[AttemptStream]) -> dict[AttemptStream, Told]:
        if new := [stream for stream in streams if not stream.is_numbered]:
            last = await self._verbs.last_events([stream.claimed.run_id for stream in new])
            for stream in new:
                stream.number(last[stream.claimed.run_id])
        taken: dict[AttemptStream, Told] = {}
        run_ids, weight = set[str](), 0
        for stream in streams:
            if stream.claimed.run_id not in run_ids and weight < _BYTES:
                taken[stream], size = stream.send()
                run_ids.add(stream.claimed.run_id)
                weight += size
        return taken

    def _settle_one(self, stream: AttemptStream, is_written: bool | None) -> None:
        """After a write: None says that the run is not ours any more, False that its row is locked by somebody else."""
        if is_written:
            stream.written()
        elif is_written is None or not self._is_patient:
            stream.forget()
            stream.number(-1)  # should it be ours all the same, others may have told something meanwhile
        if stream in self._waiting:  # the next time others come first
            del self._waiting[stream]
            self._waiting[stream] = None

    async def _put_off(self, streams: list[AttemptStream], error: DatabaseUnavailable) -> None:
        _log.warning("the events of %s runs are not written yet: %s", len(streams), error)
        if self._is_patient:
            await anyio.sleep(_PAUSE)
        else:
            for stream in streams:
                stream.forget()

    async def _write_singly(self, streams: list[AttemptStream], error: Exception) -> None:
        if len(streams) > 1:
            for stream in streams:
                await self._write([stream])
            return
        _log.error("%r: events of it cannot be written: %s", streams[0].claimed, error)
        streams[0].forget()
