"""How long a streamed answer lets wait for its first piece: a watch between a call and the one who watches it."""

import time

from pgrun.models.base import Watch


class FirstPiece(Watch):
    """Hands on what a watch is to hear of a streamed answer, and notes when that began.

    Attributes:
        after: Seconds from the making of this object to the first piece; None until then.
    """

    def __init__(self, watch: Watch) -> None:
        self.after: float | None = None
        self._watch = watch
        self._began = time.monotonic()

    def text(self, delta: str) -> None:
        self._note()
        self._watch.text(delta)

    def thought(self, delta: str) -> None:
        self._note()
        self._watch.thought(delta)

    def call(self, call_id: str, name: str) -> None:
        self._note()
        self._watch.call(call_id, name)

    def _note(self) -> None:
        if self.after is None:
            self.after = time.monotonic() - self._began
