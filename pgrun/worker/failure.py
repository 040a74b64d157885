"""What is stored of an exception with which an attempt has ended, for people and for `RunFailed`."""

import logging
import traceback
from typing import Any

from pydantic_core import from_json, to_json

from pgrun.db.records import Claimed, Ending
from pgrun.errors import AttemptError, UsageError
from pgrun.run._storable import storable_text
from pgrun.verdict import Verdict

_log = logging.getLogger("pgrun.worker")

_LONGEST = 8000  # characters of a traceback, the last of it


class UnknownHere(AttemptError):
    """This process does not know what the run is to execute; another one may."""


def unknown(claimed: Claimed) -> UnknownHere:
    """The same of this run, and how it can be helped."""
    if claimed.kind == "agent":
        return UnknownHere(
            f'no worker here knows the agent "{claimed.name}" with its tools: start one that imports it '
            "(pgrun worker --import your.module)"
        )
    return UnknownHere(
        f'no worker here knows the agent or task "{claimed.name}": start one that imports it '
        "(pgrun worker --import your.module), or use the agent once from Python, which stores its definition"
    )


def failure_of(claimed: Claimed, error: BaseException) -> dict[str, Any]:
    """The failure as it is stored; one that nobody foresaw is logged, too."""
    is_foreseen = isinstance(error, AttemptError | UsageError | Verdict)
    if not is_foreseen:
        _log.exception("%r raised", claimed, exc_info=error)
    kind = "UnknownName" if isinstance(error, UnknownHere) else type(error).__name__
    details = error.details if isinstance(error, AttemptError) else {}
    if not is_foreseen or (isinstance(error, Verdict) and error.__cause__ is not None):
        details = {**details, "traceback": _traceback_of(error)}
    message = storable_text(_text(error)) or type(error).__name__
    return {"type": kind, "message": message, "attempt": claimed.attempt, **_storable(details)}


def unforeseen(claimed: Claimed, error: Exception) -> Ending:
    """The end of a run of which even the decision could not be written: it must not be paid again and again."""
    return Ending(claimed, "error", error=failure_of(claimed, error))


def _traceback_of(error: BaseException) -> str:
    """Where it was raised, for people; the end of it, if it is long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as fault:  # the class is a user's
        return f"(its traceback cannot be had: {type(fault).__name__})"
    return text if len(text) <= _LONGEST else f"…{text[-_LONGEST:]}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # the class is a user's
        return f"(its text cannot be had: {type(fault).__name__})"


def _storable(details: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = from_json(to_json(details, fallback=repr, inf_nan_mode="null"))
    return {name: storable_text(value) if isinstance(value, str) else value for name, value in data.items()}
