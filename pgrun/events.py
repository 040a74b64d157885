"""What happens inside this process, said aloud once: to the log, and to whoever listens; tests wait for it.

These are not the events of a run's stream; they name the transitions of `sql/README.md` as this process carries them out.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Listener = Callable[[str, dict[str, Any]], None]

_listeners: list[Listener] = []
_log = logging.getLogger("pgrun")


def emit(name: str, /, **facts: Any) -> None:
    """Says that something happened, for example ``emit("claimed", run_id=…)``. Never raises, never waits.

    Args:
        name: The verb in the past tense.
        **facts: Ids and figures; they are logged as ``key=value`` at DEBUG.
    """
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s %s", name, " ".join(f"{key}={value}" for key, value in facts.items()))
    for listener in tuple(_listeners):
        listener(name, facts)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls `listener` for every event while the block runs, in the thread where it happens."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
