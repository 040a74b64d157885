"""`RunEvent`: one item of a run's stream, and how a reader puts the pieces of an answer together again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr

from pgrun.errors import UsageError

_BROKEN_OFF = ("started", "retried", "released", "parked")  # what the model has said until here counts no more


class RunEvent(BaseModel):
    """One item of the stream of a run.

    =======================  ==========================================================================================
    kind                     data
    =======================  ==========================================================================================
    started                  attempt, worker_id
    text                     text: the next piece of what the model says
    thought                  text: the next piece of what it tells of its thoughts
    tool_call_announced      call_id, name: the model begins to write down a call
    tool_call_started        call_id, name, arguments
    tool_call_completed      call_id, name, duration in seconds; result or error: what the model is shown
    model_call_completed     model, usage, duration in seconds; the next text begins another answer
    progress                 fraction, done, total, message: what of it a task has said
    retried, released        error, due_at: another attempt follows; the answer so far is void
    parked                   waits_for: children, or provider with due_at: it holds no slot while they work; `started` follows
    paused                   requirements: what a person has to decide
    resumed                  (it may go on: a person has decided, or its children have ended)
    completed                output, content_type, metrics
    error                    error, metrics
    cancelled                metrics
    =======================  ==========================================================================================

    What became of the run stands in its stream exactly as in its row; completed, error and cancelled are its end, unless a
    person retries it.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    seq: int
    """Its place in the stream of the run: 1, 2, 3 … without a gap, over all attempts."""
    kind: str
    data: dict[str, Any]
    attempt: int = 0
    created_at: datetime

    _content: "_Content" = PrivateAttr(default_factory=lambda: _Content(lambda: None))

    @property
    def text(self) -> str:
        """The piece of the answer that this event brings; empty for any other event."""
        return str(self.data["text"]) if self.kind == "text" else ""

    @property
    def content(self) -> Any:
        """The answer as far as it is known now.

        With `completed` the typed answer. Before, for plain text what has been said, and for a typed answer the part of its JSON
        data that is there: members that have not come yet are missing, the last text may be cut off, nothing is validated.
        None while there is nothing, and in an event that a program made itself. Computed anew each time.
        """
        return self._content.compute()


@dataclass(frozen=True)
class _Content:
    """The content of an event. Any two are equal: it follows from the events before, and events that tell the same are equal."""

    compute: Callable[[], Any] = field(compare=False)


@dataclass(frozen=True)
class Shape:
    """How a reader sees the answers of a run.

    Attributes:
        partial: What a text says that may still go on.
        whole: The output, as it is stored, as its type.
    """

    partial: Callable[[str], Any] = field(default=str)
    whole: Callable[[Any], Any] = field(default=lambda output: output)


class EventReader:
    """Makes events of what is stored, in the order of one run's stream, and adds up its text.

    Args:
        run_id: The run.
        shape: How its answers are read.
        so_far: Pieces of the present answer that came before the first event.
    """

    def __init__(self, run_id: str, shape: Shape, so_far: Sequence[str] = ()) -> None:
        self._run_id = run_id
        self._shape = shape
        self._pieces = [*so_far]
        self._is_over = False

    def read(self, seq: int, kind: str, data: Mapping[str, Any], attempt: int, created_at: datetime) -> RunEvent:
        """The next event."""
        if kind in _BROKEN_OFF:
            self._pieces = []
        event = RunEvent.model_construct(
            run_id=self._run_id, seq=seq, kind=kind, data={**data}, attempt=attempt, created_at=created_at
        )
        if event.text:
            self._pieces.append(event.text)
        if kind == "completed":
            event._content = _Content(lambda: self._shape.whole(data["output"]))
        elif self._pieces:
            pieces, count = self._pieces, len(self._pieces)  # shared by all events of an answer, which only grows
            event._content = _Content(lambda: self._shape.partial("".join(pieces[:count])))
        if kind == "model_call_completed":
            self._pieces = []
        return event


def check_after(after: object) -> int:
    """Returns the number of an event after which to read; raises `UsageError` if it cannot be one."""
    if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < 2**63:
        raise UsageError(f"after={after!r}: the seq of the last event you have seen, 0 for all of them")
    return after
