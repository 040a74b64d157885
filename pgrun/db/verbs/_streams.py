"""The events of runs that somebody reads."""

from collections.abc import Collection, Sequence

from pgrun.db.records import EventRow, Page, Place, Told
from pgrun.db.verbs._base import Base


class Streams(Base):
    """These verbs."""

    async def watch(self, run_id: str) -> str:
        """Begins the stream of a run, if nobody has yet; returns its status."""
        row = await self._runtime.fetch_one("watch_run", {"run_id": run_id})
        assert row is not None
        return str(row["status"])

    async def last_events(self, run_ids: Sequence[str]) -> dict[str, int]:
        """The number of the last event of each of these runs, 0 where there is none."""
        return dict(await self._runtime.fetch_tuples("find_last_events", {"run_ids": [*run_ids]}))

    async def write_events(self, told: Collection[Told]) -> dict[str, bool]:
        """Adds events to streams; returns the runs still held, and whether theirs are written: if not, others lock them."""
        runs = (
            f'"{each.run_id}":{{"fence":{each.fence},"seq":{each.seq},"events":{each.events.decode()}}}'
            for each in told
        )
        return dict(await self._runtime.fetch_tuples("write_events", {"events": f"{{{','.join(runs)}}}"}))

    async def read_events(self, places: Collection[Place], *, page: int) -> dict[Place, Page]:
        """What comes after each of these places, at most `page` events; those where there is nothing new are left out."""
        params = {
            "run_ids": [place.run_id for place in places],
            "afters": [place.after for place in places],
            "page": page,
        }
        pages: dict[Place, Page] = {}
        for run_id, after, status, *event in await self._runtime.fetch_tuples("read_events", params):
            found = pages.setdefault(Place(run_id, after), Page([], status))
            if event[0] is not None:
                found.events.append(EventRow(*event))
        return pages

    async def answer_so_far(self, place: Place) -> list[str]:
        """The pieces of the answer that was under way at a place in a stream."""
        rows = await self._runtime.fetch_tuples("get_answer_so_far", place._asdict())
        return [text for (text,) in rows]

    async def prune_events(self, older_than: float, *, batch: int) -> int:
        """Deletes the events of up to `batch` runs that ended more than `older_than` seconds ago; returns of how many."""
        row = await self._runtime.fetch_one("prune_events", {"older_than": older_than, "batch": batch})
        assert row is not None
        return int(row["pruned"])
