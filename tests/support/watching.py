"""A watch that remembers what it was told."""

from pgrun.models.base import Watch


class Remembering(Watch):
    """Keeps everything in its order; texts that follow each other as one."""

    def __init__(self, *, keeps_ids: bool = False, wants_text: bool = False) -> None:
        self.keeps_ids = keeps_ids
        self.wants_text = wants_text
        self.told: list[tuple[str, ...]] = []

    def created(self, response_id: str) -> None:
        self.told.append(("created", response_id))

    def text(self, delta: str) -> None:
        self._add("text", delta)

    def thought(self, delta: str) -> None:
        self._add("thought", delta)

    def call(self, call_id: str, name: str) -> None:
        self.told.append(("call", call_id, name))

    @property
    def ids(self) -> list[str]:
        """The ids it was told."""
        return [facts[0] for kind, *facts in self.told if kind == "created"]

    def _add(self, kind: str, delta: str) -> None:
        assert delta
        if self.told and self.told[-1][0] == kind:
            self.told[-1] = (kind, self.told[-1][1] + delta)
        else:
            self.told.append((kind, delta))
