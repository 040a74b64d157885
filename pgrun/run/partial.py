"""What an answer says that is still being written: of a typed one the part of its JSON that is there."""

import re
from typing import Any

from pydantic_core import from_json

from pgrun.run.event import Shape
from pgrun.run.output import OutputSchema

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n", re.IGNORECASE)


def shape_of(schema: OutputSchema[Any] | None) -> Shape:
    """How a reader sees the answers of runs with this output schema; None: plain text."""
    if schema is None:
        return Shape()
    return Shape(partial=lambda text: _partial(text, is_wrapped=schema.is_wrapped), whole=schema.load)


def _partial(text: str, *, is_wrapped: bool) -> Any:
    """The JSON data in a text that may end anywhere; None while there is none."""
    try:
        data = from_json(_FENCE.sub("", text, count=1), allow_partial="trailing-strings")
    except ValueError:
        return None
    # What was told after the end of a run that nobody read is its output, which is wrapped no more.
    if is_wrapped and isinstance(data, dict) and data.keys() <= {"value"}:
        return data.get("value")
    return data
