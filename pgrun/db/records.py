"""What goes into the database and comes out of it: the values that the verbs take and return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from pgrun.run.terms import Terms

Position = tuple[int, float]
"""Of a run in its queue: priority, and when it is due in seconds since 1970."""

FIRST: Position = (-32768, float("-inf"))


class NewRun(NamedTuple):
    """A run to be submitted; the fields are columns of `jobs`, `delay` is in seconds. Bytes as `input` are JSON already."""

    run_id: str
    kind: str
    name: str
    input: Any
    queue: str = "default"
    session_id: str | None = None
    session_table: str | None = None
    multitask: str | None = None
    parent_run_id: str | None = None
    priority: int = 0
    delay: float = 0.0
    max_attempts: int = 5
    definition: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    content_type: str | None = None
    metadata: Mapping[str, Any] = MappingProxyType({})
    streams: bool = False
    context: dict[str, Any] | None = None
    concurrency_key: str | None = None
    weight: int | None = None
    terms: Terms | None = None
    """No column: None for a plain run, else it is submitted by `submit_runs.sql`."""
    chosen_id: bool = False
    """No column: whether the caller has chosen the run_id, and may submit it again."""


class Placed(NamedTuple):
    """Which run a submission has become: a new one, or the one that holds its key."""

    run_id: str
    is_new: bool
    submitted_at: datetime


class NewSchedule(NamedTuple):
    """A schedule as it is added or declared; the fields are columns of `schedules`, one of `cron`, `every` and `at` is given."""

    schedule: str
    name: str
    input: Any
    queue: str
    cron: str | None
    every: timedelta | None
    at: datetime | None
    timezone: str
    missed: str
    options: dict[str, Any]


class DueSchedule(NamedTuple):
    """A schedule that a worker has to look at: its tick has come, or nobody has computed the next one (`next_at` is None)."""

    schedule: str
    cron: str | None
    every: timedelta | None
    at: datetime | None
    timezone: str
    missed: str
    changed_at: datetime
    next_at: datetime | None
    now: datetime
    """The database's clock."""


class Claimed(NamedTuple):
    """A run in the hands of a worker; `fence` is its right to write. JSON is text, read by whoever needs it."""

    run_id: str
    kind: str
    name: str
    queue: str
    session_id: str | None
    parent_run_id: str | None
    attempt: int
    max_attempts: int
    fence: int
    priority: int
    due_at: float
    """Seconds since 1970; with the priority its position in the queue."""
    input: str
    definition: str | None
    output_schema: str | None
    metrics: str
    metadata: str | None
    """Of agents only."""
    streams: bool = False
    """Whether somebody reads along."""
    steering: str | None = None
    """Of agents only, like what follows."""
    context: str | None = None
    timeout: float | None = None
    """Seconds that this attempt may take."""
    time_left: float | None = None
    """Seconds until its deadline, when it was claimed."""

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} {self.run_id} attempt {self.attempt}/{self.max_attempts}>"


class Look(NamedTuple):
    """What a worker finds that looks for runs."""

    claimed: list[Claimed]
    """In their order."""
    next_due: float | None
    """Seconds after which it makes sense to look again; None: when it is woken."""
    apart: Mapping[str, bool] = MappingProxyType({})
    """Queues that were left alone, because they have limits or runs that take turns; and whether any run is pending there."""
    waited: float = 0.0
    """Seconds for which claims from queues with limits have waited for those of other workers."""


class LeftCall(NamedTuple):
    """An answer that a provider still works on although its run has ended; the definition is JSON text, if it travels."""

    run_id: str
    response_id: str
    name: str
    definition: str | None


@dataclass(slots=True)
class Ending:
    """How a claimed run ended: completed with an output, error with an error, or cancelled.

    Bytes as `output` are JSON already. Metrics None: those in the row stay. With `keeps_call` the provider still works on an
    answer, which is to be stopped there.
    """

    claimed: Claimed
    status: str
    metrics: dict[str, Any] | None = None
    output: Any = None
    content_type: str | None = None
    error: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    keeps_call: bool = False
    heard: int = 0
    """How much of what was said to the run it has heard; with more it does not complete."""
    answer: Callable[[], dict[str, Any] | None] | None = None
    """Of an agent: its last answer as a step, should it have to go on after it; None if that is recorded."""


class Told(NamedTuple):
    """Events of a run in the hands of a worker: a JSON array of pairs of kind and data, numbered from `seq`."""

    run_id: str
    fence: int
    seq: int
    events: bytes


class EventRow(NamedTuple):
    """An event as it is stored."""

    seq: int
    kind: str
    data: dict[str, Any]
    attempt: int
    created_at: datetime


class Place(NamedTuple):
    """Where a reader is in the stream of a run: after which event."""

    run_id: str
    after: int


@dataclass(frozen=True)
class Page:
    """What comes after a place in a stream.

    Attributes:
        events: The next ones; not necessarily all.
        status: Of the run, as of the same moment; None if there is no such run.
    """

    events: list[EventRow]
    status: str | None


@dataclass(frozen=True, kw_only=True)
class WorkerCard:
    """What a worker says of itself when it registers; `lease` is in seconds."""

    worker_id: str
    mode: str
    host: str
    pid: int
    version: str
    concurrency: int
    lease: float


class TaskRun(NamedTuple):
    """What a task is told of its run beside its input."""

    metadata: dict[str, Any]
    steps: list[dict[str, Any]]
    """Those that earlier attempts have recorded: step, kind, name, data, remaining; see `get_task_run.sql`."""


class Unfinished(NamedTuple):
    """What earlier attempts have left unfinished."""

    requirements: list[dict[str, Any]]
    """What the run has waited for people for, as JSON data."""
    begun: dict[int, int]
    """The steps that have begun and not ended, with how often."""
    call: dict[str, Any] | None
    """The call of the model that was under way: step, response_id."""


class Kept(NamedTuple):
    """What a run learns when it records a step."""

    steering: list[dict[str, Any]] | None
    """All that has been said to it until now, see `jobs.steering`."""
    state: dict[str, Any] | None = None
    """Of its session, if the step changed it."""
