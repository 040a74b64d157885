"""What people type as input: a text, or JSON."""

import json
from typing import Any

import typer

from pgrun.errors import UsageError


def json_of(text: str, what: str) -> Any:
    """What somebody has typed as input: JSON, if it begins like that, else the text itself; ``-`` reads it from stdin."""
    from pgrun.run._storable import to_jsonable

    if text == "-":
        text = typer.get_text_stream("stdin").read()
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return to_jsonable(text, name=what)
    try:
        return to_jsonable(json.loads(text), name=what)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{what} begins like JSON but is none: {error}") from None


def object_of(text: str, what: str) -> dict[str, Any]:
    """A JSON object that somebody has typed."""
    data = json_of(text, what)
    if not isinstance(data, dict):
        raise UsageError(f"{what} must be a JSON object")
    return data
