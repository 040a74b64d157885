"""What is written of a schedule: when it comes round, and what its runs are told, checked as far as this process can."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from pgrun.db.records import NewRun, NewSchedule
from pgrun.errors import UsageError
from pgrun.schedule import Timing, check_missed

_STORED = ("session_id", "priority", "max_attempts", "multitask", "metadata", "context", "concurrency_key", "weight")
"""What of a run's options is stored with its schedule."""

_OF_THE_TARGET = (
    "run_id",
    "kind",
    "name",
    "input",
    "queue",
    "session_table",
    "definition",
    "output_schema",
    "content_type",
)
"""What has a column of its own, or is taken as the target is declared when a tick is fired."""


class Target(Protocol):
    """What a schedule can run: an agent, or a task."""

    name: str

    def template(self, input: Any, options: Mapping[str, Any]) -> NewRun:
        """What its runs are like; without a run_id unless one was chosen.

        Raises:
            UsageError: The input or an option cannot be.
        """


def timing_of(cron: str | None, every: float | timedelta | None, at: datetime | None, timezone: str) -> Timing:
    """When a schedule comes round; `every` may be seconds."""
    if every is not None and not isinstance(every, timedelta):
        try:
            every = timedelta(seconds=every)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"every={every!r}: seconds, or a timedelta") from None
    return Timing(cron=cron, every=every, at=at, timezone=timezone)


def plan(
    target: Target | str,
    input: Any,
    name: str | None,
    timing: Timing,
    missed: str,
    options: Mapping[str, Any],
) -> NewSchedule:
    """The schedule for some runs of a target.

    Raises:
        UsageError: An argument or an option cannot be.
    """
    like = _Named(target) if isinstance(target, str) else target
    template = like.template(input, options)
    if template.run_id:
        raise UsageError("run_id= is for one run; a schedule has many")
    if template.terms is not None:
        raise UsageError(f"{template.terms.said[0]}= is not for runs of a schedule; there are {', '.join(_STORED)}")
    for column, default in NewRun._field_defaults.items():
        if column not in (*_STORED, *_OF_THE_TARGET) and getattr(template, column) != default:
            raise UsageError(f"{column}= is not for runs of a schedule; there are {', '.join(_STORED)}")
    return NewSchedule(
        schedule=name or template.name,
        name=template.name,
        input=template.input,
        queue=template.queue,
        cron=timing.cron,
        every=timing.every,
        at=timing.at,
        timezone=timing.timezone,
        missed=check_missed(missed),
        options={column: value for column in _STORED if (value := getattr(template, column))},
    )


class _Named:
    """An agent or task that this process knows by its name alone; what its runs are told is checked when it is stored."""

    def __init__(self, name: str) -> None:
        self.name = name

    def template(self, input: Any, options: Mapping[str, Any]) -> NewRun:
        if strange := sorted({*options} - {*_STORED, "queue", "run_id", "delay"}):
            raise UsageError(f"runs of a schedule have no option {strange[0]}=")
        like = NewRun(run_id="", kind="", name=self.name, input={} if input is None else input, max_attempts=0)
        return like._replace(**options)
