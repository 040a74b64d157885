"""What a task asks of its context: steps by their names, those of earlier attempts without calling them again, and sleeps."""

import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import anyio
from pydantic_core import from_json

from pgrun._calling import call_in_thread
from pgrun._durations import is_duration
from pgrun.errors import UsageError
from pgrun.run._arguments import Result
from pgrun.run.options import check_name

Kind = Literal["step", "sleep"]


class Asleep(BaseException):
    """The run sleeps for longer than a slot is worth; no error, so that no ``except Exception`` of a task meets it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"asleep for {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Begun:
    """A step that begins: its number in the journal, its name there, and what an earlier attempt has recorded of it."""

    number: int
    name: str
    recorded: Mapping[str, Any] | None


class TaskHost:
    """The host of a task that is called without a run: steps are taken, and nothing is kept.

    Args:
        steps: What earlier attempts have recorded: step, kind, name, data, and of sleeps the seconds that remain.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]] = ()) -> None:
        self._recorded = {(each["kind"], each["name"]): each for each in steps}
        self._last = max((each["step"] for each in steps), default=0)
        self._uses = Counter[tuple[Kind, str]]()
        self._lock = threading.Lock()

    async def step(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `TaskContext.step`."""
        begun, form = self.begin("step", name), _form_of(name, function)
        if begun.recorded is not None:
            return form.load(begun.recorded["data"])
        began = time.monotonic()
        data = form.dump(await _call(partial(function, *args, **kwargs)))
        await self.keep(begun, data, time.monotonic() - began)
        return form.load(from_json(data))  # the same as another attempt will get

    def step_here(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `SyncTaskContext.step`."""
        begun, form = self.begin("step", name), _form_of(name, function)
        if begun.recorded is not None:
            return form.load(begun.recorded["data"])
        began = time.monotonic()
        data = form.dump(function(*args, **kwargs))
        self.keep_here(begun, data, time.monotonic() - began)
        return form.load(from_json(data))

    async def sleep(self, seconds: float) -> None:
        """See `TaskContext.sleep`."""
        await anyio.sleep(check_seconds(seconds))

    def sleep_here(self, seconds: float) -> None:
        """See `SyncTaskContext.sleep`."""
        time.sleep(check_seconds(seconds))

    def note(self, progress: dict[str, Any]) -> None:
        """Nobody is interested."""

    async def keep(self, begun: Begun, data: bytes, duration: float) -> None:
        """Records a step, as JSON, and the seconds it took; returns when that cannot be lost any more."""

    def keep_here(self, begun: Begun, data: bytes, duration: float) -> None:
        """The same in a thread."""

    def begin(self, kind: Kind, name: str) -> Begun:
        """The next step of that kind and name.

        Raises:
            UsageError: The name cannot be one.
        """
        check_name("the name of a step", name)
        with self._lock:  # a plain function may have threads of its own
            self._uses[kind, name] += 1
            uses = self._uses[kind, name]
            shown = name if uses == 1 else f"{name}#{uses}"
            recorded = self._recorded.get((kind, shown))
            if recorded is None:
                self._last += 1
            return Begun(self._last, shown, recorded)


def check_seconds(seconds: float) -> float:
    """Returns a duration, or raises `UsageError`."""
    if not is_duration(seconds):
        raise UsageError(f"sleep({seconds!r}): seconds, 0 or more, at most a century")
    return seconds


async def _call(function: partial[Any]) -> Any:
    return await (function() if inspect.iscoroutinefunction(function) else call_in_thread(function))


def _form_of(name: str, function: Callable[..., Any]) -> Result:
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    function = getattr(function, "__func__", function)
    if getattr(function, "__closure__", None):  # what it holds would be kept with its form
        return Result(f"step {name}", function)
    return _known_form(name, function)


@lru_cache(maxsize=256)
def _known_form(name: str, function: Callable[..., Any]) -> Result:
    return Result(f"step {name}", function)
