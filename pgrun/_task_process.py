"""Tasks in processes of their own, for functions that compute, or that have to be killed when their time is up.

The processes are anyio's: they are kept for the next call, and one whose call is cancelled is killed. What travels is where the
function is, and JSON.
"""

import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import anyio.to_process
from pydantic_core import from_json

from pgrun.errors import UsageError
from pgrun.run._arguments import Arguments, Result


def check_reachable(name: str, function: Callable[..., Any]) -> None:
    """Raises `UsageError` for a function that another process cannot find by its module and name."""
    if "<" in function.__qualname__:
        raise UsageError(f'task "{name}": with processes=True it has to be at the top of a module')


async def call_in_process(name: str, function: Callable[..., Any], data: str) -> Any:
    """Calls a plain function with stored arguments (JSON) in another process; returns its result as JSON data.

    At most one process per processor computes, what comes then waits. Cancelled, the process is killed.
    """
    where = function.__module__, function.__qualname__
    return from_json(await anyio.to_process.run_sync(_execute, name, *where, data, cancellable=True))


def _execute(name: str, module: str, qualname: str, data: str) -> bytes:
    """What the other process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which finishes what it holds
    function = _find(module, qualname)
    arguments, result = _forms_of(name, function)
    try:
        return result.dump(function(**arguments.load(data)))
    except Exception as error:
        raise _portable(error) from None


def _find(module: str, qualname: str) -> Callable[..., Any]:
    found: Any = sys.modules["__main__"] if module == "__main__" else import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = getattr(found, "function", found)  # of a task
    return function


@lru_cache(maxsize=256)
def _forms_of(name: str, function: Callable[..., Any]) -> tuple[Arguments, Result]:
    return Arguments(name, function), Result(name, function)


def _portable(error: Exception) -> Exception:
    """The exception itself, with its traceback as a note, if it can travel; else one that says the same."""
    error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
