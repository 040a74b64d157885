"""What all verbs need: the connections of one event loop, and JSON."""

from typing import Any

from pydantic_core import to_json

from pgrun.db._runtime import Runtime


class Base:
    """The verbs of one subject."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues = set[str]()


def as_json(value: Any) -> str:
    """JSON text; bytes are that already."""
    return value.decode() if isinstance(value, bytes) else to_json(value).decode()


def as_json_or_none(value: Any) -> str | None:
    """The same, and None for None."""
    return None if value is None else as_json(value)
