"""What the provider demands of every call, whatever API it is for: a key, a JSON body, a schema it can follow.

What the provider answers with 400 or 401 is refused here, in `responses`, `chat` and `tools` in the same words, so that
a request that only a forgiving fake would accept is found in a test and not at the first paid call.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgrun.testing.request import RequestRejected, missing
from pgrun.testing.strictness import SchemaRejected, check_strict

_TYPE_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
}
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class FormatNames:
    """What an API calls the parameters that say which form the answer shall have.

    Attributes:
        format: Where the form is.
        schema: Where a schema has its name and its body.
        rejected: What the provider points at if the schema is not strict.
        code: And the error's code then.
    """

    format: str
    schema: str
    rejected: str
    code: str | None


def check_key(headers: Mapping[str, str]) -> None:
    """Check that a call brings a key, whichever it is.

    Raises:
        RequestRejected: It does not (401).
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise RequestRejected("You didn't provide an API key in an Authorization header (Bearer ...).", status=401)


def check_types(body: Mapping[str, Any], expected: Mapping[str, tuple[type, ...]]) -> None:
    """Check that what a request gives is of a type its parameter can have; null stands for nothing given.

    Raises:
        RequestRejected: It is not.
    """
    for name, types in expected.items():
        if body.get(name) is not None and not isinstance(body[name], types):
            words = " or ".join(_TYPE_NAMES[each] for each in types)
            message = f"Invalid type for '{name}': expected {words}, but got {_type_name(body[name])} instead."
            raise RequestRejected(message, param=name, code="invalid_type")


def check_format(wanted: Mapping[str, Any], names: FormatNames) -> None:
    """Check the form that the answer shall have, as `ModelRequest.output_format` says it.

    Raises:
        RequestRejected: The provider does not know it, or its schema is not what strict mode takes.
    """
    if wanted.get("type") not in ("text", "json_object", "json_schema"):
        place = f"{names.format}.type"
        raise RequestRejected(f"Invalid value for '{place}'.", param=place, code="invalid_value")
    if wanted["type"] == "json_schema":
        _check_schema(wanted, names)


def _type_name(value: object) -> str:
    return next(name for kind, name in _TYPE_NAMES.items() if type(value) is kind)


def _check_schema(wanted: Mapping[str, Any], names: FormatNames) -> None:
    name, schema = wanted.get("name"), wanted.get("schema")
    if not name:
        raise missing(f"{names.schema}.name")
    if not _SCHEMA_NAME.fullmatch(str(name)):
        message = f"Invalid '{names.schema}.name': expected 1 to 64 letters, digits, underscores or dashes."
        raise RequestRejected(message, param=f"{names.schema}.name", code="invalid_value")
    if not isinstance(schema, dict):
        raise missing(f"{names.schema}.schema")
    if not wanted.get("strict"):
        return
    try:
        check_strict(schema)
    except SchemaRejected as error:
        message = f"Invalid schema for response_format '{name}': {error}"
        raise RequestRejected(message, param=names.rejected, code=names.code) from error
