"""How an invalid answer is told: to the person who reads the run's error, and to the model that may repair it.

Arguments of a tool likewise, to whoever gave them.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from pgrun.errors import OutputInvalid
from pgrun.run._storable import path_text, storable_text

Loc = tuple[str | int, ...]

# A long list of bad items must fill neither the run's row nor the model's context.
_MAX_ERRORS = 20
_MAX_CHARACTERS = 300
_IN_MESSAGE = 3


def invalid(name: str, raw: str, errors: Iterable[tuple[Loc, str]]) -> OutputInvalid:
    """Returns the error for an answer that does not fit the schema called `name`.

    Args:
        name: Of the output schema.
        raw: The answer's text, kept because it was paid for.
        errors: Locations in the answer and what is wrong there.
    """
    found = [{"loc": list(loc), "msg": _shortened(message)} for loc, message in errors]
    rest = f"; and {len(found) - _IN_MESSAGE} more" if len(found) > _IN_MESSAGE else ""
    message = f"The answer does not match {name}: {'; '.join(map(_line, found[:_IN_MESSAGE]))}{rest}"
    return OutputInvalid(message, raw=raw, errors=found[:_MAX_ERRORS])


def complaint(error: OutputInvalid, *, name: str, is_wrapped: bool) -> str:
    """Returns the user turn that asks the model for a corrected answer; 20 lines of about 400 characters at most."""
    reasons = [f"- {_line(found)}" for found in error.details.get("errors", ())]
    shape = 'a JSON object with the single key "value"' if is_wrapped else "JSON"
    return "\n".join(
        [
            f"Your answer does not match the JSON schema {name}:",
            *(reasons or [f"- {error}"]),
            f"Answer again, completely and corrected, with {shape} and nothing else.",
        ]
    )


def invalid_arguments(error: ValidationError) -> str:
    """What is wrong with the arguments of a call; not what they were, which whoever gave them knows and a log need not."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_ERRORS]
    lines = [f"{path_text(each['loc'])}: {each['msg']}" if each["loc"] else each["msg"] for each in found]
    return f"Invalid arguments: {'; '.join(lines)}"


def _line(error: dict[str, Any]) -> str:
    path = _shortened(path_text(error["loc"]), 100)
    return f"{path}: {error['msg']}" if path else str(error["msg"])


def _shortened(text: str, limit: int = _MAX_CHARACTERS) -> str:
    return storable_text(text if len(text) <= limit else f"{text[: limit - 1]}…")
