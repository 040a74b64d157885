"""Readers of streams: one subscription and one query for all of a process, however many they are and whatever they read.

A reader asks for the next page when it has used up the last one, so one that is slow costs nothing and holds up nobody: what it
has not read waits in the table. Notifications, reconnects and polling only decide when to look; what counts are the rows.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

import anyio

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db._runtime import Runtime
from pgrun.db.records import EventRow, Page, Place
from pgrun.db.verbs import Verbs
from pgrun.errors import PgrunError, RunNotFound
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.db")

_PAGE = 200  # events
_LOOK_AT_ONCE = 100  # places per statement
_POLL_LISTENING = 1.0  # seconds between looks that nobody asked for: what a lost notification costs
_POLL_SOONEST = 0.25  # the same while LISTEN does not work, right after something was found ...
_POLL_LATEST = 1.0  # ... and after a while without
_LINGER = 10.0  # seconds for which it listens on when the last reader has left
_ENDED = ("completed", "error", "cancelled")

Subscribe = Callable[["Following"], Callable[[], None]]


class Reader:
    """One who reads the stream of one run, from one place to the next; made by `Following.open`."""

    def __init__(self, following: "Following", place: Place) -> None:
        self.place = place
        self.asks = False
        self.is_behind = True
        """Whether there may be something after its place."""
        self._following = following
        self._answered = anyio.Event()
        self._answer: Page | PgrunError
        self._is_over = False

    async def next_page(self) -> Sequence[EventRow]:
        """The next events, at least one, as soon as there are any; none when the stream is at its end.

        Its end is that of the run, or that the run is paused; a reader that begins after the pause waits for what follows.

        Raises:
            RunNotFound: The run does not exist any more.
            DatabaseUnavailable: The database was lost and did not come back in time.
        """
        if self._is_over:
            return ()
        answer = await self._ask()
        if isinstance(answer, PgrunError):
            raise answer
        return self._turn(answer)

    def close(self) -> None:
        """It reads no more."""
        self._following.forget(self)

    def give(self, answer: Page | PgrunError) -> None:
        """Answers it."""
        self._answer = answer
        self._answered.set()

    async def _ask(self) -> Page | PgrunError:
        self._answered, self.asks = anyio.Event(), True
        if self.is_behind:
            self._following.ask()
        try:
            await self._answered.wait()
        except BaseException:
            self.is_behind = True  # it gave up, and has not heard what may have been answered
            raise
        finally:
            self.asks = False
        return self._answer

    def _turn(self, page: Page) -> Sequence[EventRow]:
        if page.status is None:
            raise RunNotFound(f"no run {self.place.run_id} exists", run_id=self.place.run_id)
        if len(page.events) < _PAGE:
            is_paused = page.status == "paused" and page.events[-1].kind == "paused"
            self._is_over = page.status in _ENDED or is_paused
        else:
            self.is_behind = True
        if page.events:
            self.place = Place(self.place.run_id, page.events[-1].seq)
        return page.events


class Following:
    """The readers of one event loop; a `listener.StreamSubscriber`."""

    def __init__(self, runtime: Runtime, verbs: Verbs, settings: Settings, subscribe: Subscribe) -> None:
        self._runtime = runtime
        self._verbs = verbs
        self._settings = settings
        self._subscribe = subscribe
        self._readers: dict[str, set[Reader]] = {}
        self._look = anyio.Event()
        self._listening = False
        self._pause = _POLL_SOONEST

    def open(self, run_id: str, after: int) -> Reader:
        """A reader of a run's stream, which begins after an event; it has to be closed."""
        reader = Reader(self, Place(run_id, after))
        self._readers.setdefault(run_id, set()).add(reader)
        return reader

    def forget(self, reader: Reader) -> None:
        """Takes a reader away."""
        readers = self._readers.get(reader.place.run_id, set())
        readers.discard(reader)
        if not readers:
            self._readers.pop(reader.place.run_id, None)

    def ask(self) -> None:
        """There is a reason to look."""
        self._look.set()

    async def serve(self) -> None:
        """Looks at streams whenever there is a reason to; runs for as long as the loop does, and listens while somebody reads."""
        while True:
            if not self._readers:
                await self._look.wait()
            leave = self._subscribe(self)
            try:
                await self._serve_readers()
            finally:
                leave()
                self._listening = False

    async def _serve_readers(self) -> None:
        """Returns when there has been nobody for a while."""
        polled_at = last_read_at = anyio.current_time()
        while self._readers or anyio.current_time() < last_read_at + _LINGER:
            # From poll to poll, not from look to look: where there is always something new, whoever was forgotten would wait
            # for ever.
            poll_at = polled_at + self._interval()
            with anyio.CancelScope(deadline=poll_at):
                await self._look.wait()
            self._look = anyio.Event()
            if anyio.current_time() >= poll_at:
                polled_at = anyio.current_time()
                self._everyone_is_behind()
            await self._look_for([reader for each in self._readers.values() for reader in each])
            if self._readers:
                last_read_at = anyio.current_time()

    def on_events(self, run_ids: Sequence[str]) -> None:
        """Called in the listener's thread."""
        if mine := [run_id for run_id in run_ids if run_id in self._readers]:
            self._runtime.call_soon(self._hint, mine)

    def on_state(self, listening: bool) -> None:
        """Called in the listener's thread; whatever was not heard before is looked for now."""
        self._runtime.call_soon(self._set_listening, listening)

    def _set_listening(self, listening: bool) -> None:
        self._listening = listening
        self._everyone_is_behind()

    def _everyone_is_behind(self) -> None:
        self._hint([*self._readers])

    def _hint(self, run_ids: Iterable[str]) -> None:
        for reader in (reader for run_id in run_ids for reader in self._readers.get(run_id, ())):
            reader.is_behind = True
            if reader.asks:
                self.ask()

    def _interval(self) -> float:
        longest = min(_POLL_LISTENING, self._settings.poll_interval) if self._listening else self._pause
        return longest * uniform(0.9, 1.1)

    async def _look_for(self, readers: Iterable[Reader]) -> None:
        waiting: dict[Place, list[Reader]] = {}
        for reader in readers:
            if reader.asks and reader.is_behind:
                reader.is_behind = False  # whatever it is told of from here on is not seen by this look for certain
                waiting.setdefault(reader.place, []).append(reader)
        places, found = [*waiting], False
        for start in range(0, len(places), _LOOK_AT_ONCE):
            some = places[start : start + _LOOK_AT_ONCE]
            found |= await self._look_at({place: waiting[place] for place in some})
        if places:
            self._pause = _POLL_SOONEST if found else min(self._pause * 2, _POLL_LATEST)

    async def _look_at(self, waiting: dict[Place, list[Reader]]) -> bool:
        try:
            pages = await self._verbs.read_events(waiting, page=_PAGE)
        except PgrunError as error:
            _log.warning("the readers of %s streams get: %s", len(waiting), error)
            for reader in (reader for readers in waiting.values() for reader in readers):
                reader.give(error)
            return False
        for place, page in pages.items():
            events.emit("told", run_id=place.run_id, after=place.after, events=len(page.events))
            for reader in waiting[place]:
                reader.give(page)
        return bool(pages)
