"""How one run is to be executed: what callers may say beside the input."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypedDict, get_args

from pgrun._ids import check_run_id, new_run_id
from pgrun.errors import UsageError
from pgrun.run._foreign import advice
from pgrun.run._storable import find_unstorable, to_jsonable
from pgrun.run._terms_said import CHECKS as _TERMS
from pgrun.run._terms_said import terms_of
from pgrun.run.media import File, Image, media_of
from pgrun.run.terms import KeyScope, OnDuplicate, Terms

_OBJECTS = ("dependencies", "session_state")
_CENTURY = 100 * 366 * 86_400
_SMALLINT = 32767
_INT = 2**31 - 1


Multitask = Literal["enqueue", "reject", "interrupt", "rollback", "parallel"]
"""What a run does when it is submitted into a session that is busy.

============  ==========================================================================================================
enqueue       it waits until those before it have ended
reject        it is not stored: `SessionBusy`
interrupt     those before it are cancelled, and it is the next; what they had done stays
rollback      the same, but later runs are shown nothing of them, and what they changed in the session's state is undone
parallel      it neither waits for the others nor do they wait for it; nobody interrupts it but by its id
============  ==========================================================================================================
"""


class RunOptions(TypedDict, total=False):
    """What any run can be told; None stands for the default."""

    session_id: str | None
    """The conversation it belongs to; its runs execute one at a time, in order. Default: one of its own; for a task none."""
    run_id: str | None
    """A UUID made by the caller; submitting it twice gives the same run. Default: a new one."""
    queue: str | None
    """By which workers choose runs. Default: the agent's or task's."""
    priority: int | None
    """-32768 to 32767, smaller runs first. Default: 0."""
    delay: float | None
    """Seconds from now before which it does not start. Default: 0."""
    max_attempts: int | None
    """Default: as its retry policy says."""
    multitask: Multitask | None
    """What it does if its session is busy, that is, has another open run. Default: the agent's; for a task to enqueue."""
    metadata: Mapping[str, Any] | None
    """Whatever you want to find again in `jobs.metadata`."""
    due_at: datetime | None
    """The moment before which it does not start, with a time zone; instead of `delay`."""
    expires: float | datetime | None
    """A moment, or seconds from when it is due: if nobody has started it by then it is cancelled (`RunExpired`).
    Default: never."""
    deadline: float | datetime | None
    """The same for its end: what has not ended by then, with all its attempts, fails (`DeadlineExceeded`).
    Default: none."""
    timeout: float | None
    """Seconds that one attempt may take; then it has failed (`AttemptTimeout`), and the next one follows.
    Default: the task's."""
    tags: Iterable[str] | None
    """Words to find it by, in `jobs.tags`."""
    key: str | None
    """What it is about, such as ``"order-7"``: of one task or agent, one run at a time holds a key. Who submits the same key
    meanwhile gets that run, with `duplicate` true. Default: none."""
    key_scope: KeyScope | None
    """How long it holds the key: `pending`, `unfinished` or `ever`. With `ever` the key makes repeats of a request harmless.
    Default: `unfinished`; `pending` if a duplicate is to be replaced or debounced."""
    key_period: float | None
    """It holds the key for so many seconds since it was submitted, whether it has ended or not; instead of `key_scope`."""
    on_duplicate: OnDuplicate | None
    """Whether a run that holds the key and has not started gets the newer input. Default: `keep`."""
    max_delay: float | None
    """With ``on_duplicate="debounce"``: seconds by which its start is put off at most, all in all. Default: for ever."""
    conn: Any | None
    """Your own connection, in whose transaction it is stored: psycopg's, or a session or connection of SQLAlchemy that uses
    psycopg. It starts when you commit, and never was if you roll back. Only for background runs. Default: one of ours."""
    concurrency_key: str | None
    """For whom or what it is, such as a customer: the keys of a queue take turns, and its `key_concurrency` limits how many runs
    of one key run at once. Default: none; the runs without one take turns with the keys."""
    weight: int | None
    """How much of the `rate` of its queue its start uses up, such as the tokens it is likely to need. Default: 1."""


class AgentRunOptions(RunOptions, total=False):
    """Keyword arguments of ``agent.arun`` and ``agent.run``; None stands for the default."""

    user_id: str | None
    """Whom it is for; tools find it in their `RunContext`. Default: the agent's."""
    dependencies: Mapping[str, Any] | None
    """What tools, hooks and instructions find in their `RunContext`, over the agent's; JSON data."""
    session_state: Mapping[str, Any] | None
    """Merged into the state of the session when the run begins."""
    images: Sequence[Image] | None
    """Shown to the model with the input."""
    files: Sequence[File] | None
    """Shown to the model with the input."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The options of one run, none of them left open."""

    run_id: str
    session_id: str | None
    queue: str
    max_attempts: int
    priority: int = 0
    delay: float = 0.0
    multitask: Multitask | None = None
    """None: enqueue."""
    metadata: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] | None = None
    """What only agents are told, see `jobs.context`."""
    terms: Terms | None = None
    """None: it is a plain run."""
    chosen_id: bool = False
    """Whether the caller has chosen the run_id, and may submit it again."""
    concurrency_key: str | None = None
    weight: int | None = None
    """None: 1."""


def choose_for_agent(options: Mapping[str, Any], *, metadata: Mapping[str, Any], **defaults: Any) -> Choices:
    """As `choose`, with what only agents are told; the run's own `metadata` goes over the agent's."""
    known = AgentRunOptions.__annotations__.keys()
    _refuse_unknown(options.keys(), known)
    told = {name: options.get(name) for name in sorted(known - RunOptions.__annotations__.keys())}
    given: Any = {name: value for name, value in options.items() if name not in told}
    choices = choose(given, **defaults)
    return replace(choices, metadata={**metadata, **choices.metadata}, context=_context(told))


def choose(
    options: RunOptions, *, queue: str, max_attempts: int, session_id: str | None, multitask: Multitask | None = None
) -> Choices:
    """Checks what a caller said and fills in the rest with the defaults of the agent or task.

    Raises:
        UsageError: An option does not exist or cannot be.
    """
    _refuse_unknown(options.keys(), RunOptions.__annotations__.keys())
    terms = terms_of(options)
    given = {
        name: _CHECKS[name](name, value) for name, value in options.items() if value is not None and name not in _TERMS
    }
    defaults: dict[str, Any] = {
        "run_id": new_run_id(),
        "session_id": session_id,
        "queue": queue,
        "max_attempts": max_attempts,
        "multitask": multitask,
    }
    return Choices(**(defaults | given), terms=terms, chosen_id="run_id" in given)


def _refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    if unknown := sorted({*given} - {*known}):
        names = ", ".join(f"{name}=" for name in unknown)
        raise UsageError(f"runs have no option {names}; there are {', '.join(known)}{advice(unknown)}")


def _context(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a run is told beside its input, as it is stored."""
    media = media_of(told["images"], told["files"])
    user_id = None if told["user_id"] is None else check_name("user_id", told["user_id"])
    objects = {name: _check_object(name, told[name]) for name in _OBJECTS if told[name] is not None}
    found = {"user_id": user_id, **objects, "media": media}
    return {name: value for name, value in found.items() if value} or None


def check_name(name: str, value: object) -> str:
    """Returns the value if it is a text that can stand in a column and is not empty, else raises `UsageError`."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name}={value!r}: a text that is not empty")
    if reason := find_unstorable(value, name=name):
        raise UsageError(reason)
    return value


def check_multitask(name: str, value: object) -> Multitask | None:
    """Returns the value if it is one, None for the default, which is stored as nothing; else raises `UsageError`."""
    if value not in (known := get_args(Multitask)):
        raise UsageError(f"{name}={value!r} is none of {', '.join(known)}")
    return None if value == "enqueue" else value  # type: ignore[return-value]


def _check_run_id(_: str, value: object) -> str:
    return check_run_id(value)


def _check_delay(name: str, value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= _CENTURY:
        raise UsageError(f"{name}={value!r}: seconds from now, 0 or more, at most a century")
    return value


def _check_whole(name: str, value: object, *, lowest: int, highest: int = _SMALLINT) -> int:
    if not isinstance(value, int) or not lowest <= value <= highest:
        raise UsageError(f"{name}={value!r}: a whole number from {lowest} to {highest}")
    return value


def _check_object(name: str, value: object) -> Any:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name}={value!r}: a dict")
    return to_jsonable(value, name=name)


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "session_id": check_name,
    "run_id": _check_run_id,
    "queue": check_name,
    "priority": partial(_check_whole, lowest=-_SMALLINT - 1),
    "max_attempts": partial(_check_whole, lowest=1),
    "delay": _check_delay,
    "multitask": check_multitask,
    "metadata": _check_object,
    "concurrency_key": check_name,
    "weight": partial(_check_whole, lowest=1, highest=_INT),
}
