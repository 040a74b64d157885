"""What an attempt tells while it goes on: kept in memory until somebody reads along, then sent piece by piece."""

from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from pgrun.db.records import Claimed, Ending, Told
from pgrun.run.stream import Stream

_REMEMBERED_BYTES = 1_000_000  # of an attempt that nobody reads, about; whoever comes later begins in the middle
_EVENT_BYTES = 100  # beside its texts, about

_GROWING = ("text", "thought")  # of two in a row one can be made


class AttemptStream(Stream):
    """What one attempt has told, and how far it is written.

    Args:
        claimed: The run, with the fence that every write carries.
        notice: Called when there is something to write that somebody wants to read.
    """

    def __init__(self, claimed: Claimed, notice: Callable[["AttemptStream"], None]) -> None:
        super().__init__()
        self.claimed = claimed
        self.wants_text = claimed.streams
        self.ending: Ending | None = None
        self._notice = notice
        self._told: list[tuple[str, dict[str, Any]]] = []
        self._pieces: list[str] = []  # of the last event, if it can grow
        self._weight = 0
        self._sent: list[bytes] = []  # under way, and not changed any more: the statement may have to be repeated
        self._seq = -1  # of the last event that is written

    @property
    def waits(self) -> bool:
        """Whether there is something that is not written and has to be."""
        return self.wants_text and bool(self._told or self._sent)

    @property
    def is_numbered(self) -> bool:
        """Whether it is known where its numbers begin."""
        return self._seq >= 0

    def tell(self, kind: str, **data: object) -> None:
        """Takes the next event; a piece of text joins the one before it."""
        if kind in _GROWING and self._pieces and self._told[-1][0] == kind:
            self._pieces.append(str(data["text"]))
        else:
            self._close_pieces()
            self._told.append((kind, data))
            if kind in _GROWING:
                self._pieces = [str(data["text"])]
        self._weight += _EVENT_BYTES + sum(len(value) for value in data.values() if isinstance(value, str))
        if self.wants_text:
            self._notice(self)
        elif self._weight > _REMEMBERED_BYTES:
            self.forget()

    def want(self) -> None:
        """Somebody reads along from now on."""
        if not self.wants_text:
            self.wants_text = True
            if self.waits:
                self._notice(self)

    def number(self, last: int) -> None:
        """The next event comes after this one."""
        self._seq = last

    def send(self) -> tuple[Told, int]:
        """What is to be written now, the same again until it is written, and its size in bytes."""
        if not self._sent:
            self._close_pieces()
            self._sent = [to_json(event, inf_nan_mode="null", fallback=str) for event in self._told]
            self._told, self._weight = [], 0
        events = b"[%b]" % b",".join(self._sent)
        return Told(self.claimed.run_id, self.claimed.fence, self._seq + 1, events), len(events)

    def written(self) -> None:
        """What was sent is written."""
        self._seq += len(self._sent)
        self._sent = []

    def forget(self) -> None:
        """What has been told is not written any more."""
        self._told, self._pieces, self._sent, self._weight = [], [], [], 0

    def _close_pieces(self) -> None:
        if len(self._pieces) > 1:
            self._told[-1] = (self._told[-1][0], {"text": "".join(self._pieces)})
        self._pieces = []
