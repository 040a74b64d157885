"""What may follow from an attempt: it has ended the run, or somebody goes on with it, at once, later, or after something."""

from dataclasses import dataclass
from typing import Any

from pgrun.db.records import Ending


@dataclass(frozen=True)
class Retry:
    """Make it due again in `delay` seconds; the attempt is used up.

    With `keeps_call` the next one takes up the answer that the model still works on.
    """

    delay: float
    error: dict[str, Any]
    metrics: dict[str, Any] | None
    keeps_call: bool = False


@dataclass(frozen=True)
class Release:
    """Give it back uncounted, due again in `delay` seconds; `error` tells people why it waits, `keeps_call` as for a retry."""

    delay: float
    error: dict[str, Any]
    metrics: dict[str, Any] | None
    keeps_call: bool = False


@dataclass(frozen=True)
class Park:
    """Put it aside, uncounted, until the runs that it has started have ended."""

    metrics: dict[str, Any] | None


@dataclass(frozen=True)
class Pause:
    """Let it wait, without a worker, until people have decided; the attempt is not used up."""

    requirements: list[dict[str, Any]]
    holds_session: bool
    metrics: dict[str, Any] | None
    tools: list[dict[str, Any]] | None


@dataclass(frozen=True)
class Leave:
    """Give it back uncounted to whoever takes up the answer that its provider works on, in `delay` seconds.

    It is parked if that is because the provider has not begun with it; else its worker goes.
    """

    delay: float
    metrics: dict[str, Any] | None = None
    parks: bool = False


Decision = Ending | Retry | Release | Leave | Park | Pause
