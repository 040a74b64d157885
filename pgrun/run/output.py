"""What an agent answers with: a type is declared, its schema travels with the run, and the model's text becomes a value.

::

    OutputSchema.of(City)  ─►  json_schema, stored with the run  ─►  OutputSchema.from_json(...) in a bare worker
                                                                     │
             strict_schema, sent to the provider  ◄──────────────────┤
                                                                     │
             the model's text  ─►  read  ─►  content, stored  ─►  load  ─►  a City, in the process that knows the class

Everything a worker needs comes from the stored schema alone. Where the class is at hand as well, its own validators have a
say too, after the schema: so what one worker stores, every other would have stored.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Generic, TypeVar, cast, overload
from weakref import WeakValueDictionary

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaError, SchemaValidator, from_json, to_json

from pgrun.errors import OutputInvalid, UsageError
from pgrun.run._complaint import Loc, complaint, invalid
from pgrun.run._declared import adapter_of, json_schema_of, stored_form, type_name
from pgrun.run._json_check import json_check
from pgrun.run._json_schema import NAME, is_wrapped
from pgrun.run._storable import canonical_json, find_unstorable, storable_json, storable_text
from pgrun.run._strict import strict_schema

T = TypeVar("T")
U = TypeVar("U")

_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(?P<inside>.*)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A model's answer that was found valid.

    Attributes:
        content: Plain JSON data as the model wrote it, without the wrapping; what is stored.
        value: The same as the declared type; without a type, `content` itself.
    """

    content: Any
    value: T


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False, repr=False)
class OutputSchema(Generic[T]):
    """What an agent has to answer with; made by `of` or `from_json`, and not changed afterwards.

    Attributes:
        name: The name the provider gets, ``^[A-Za-z0-9_-]{1,64}$``; stored as the run's `content_type`.
        json_schema: The schema to store with the run. It holds all that `from_json` needs, also after `jsonb` sorted its keys.
        strict_schema: The schema the provider gets, for its strict mode.
        fingerprint: Hash of `json_schema`, the same before and after it was stored.
        is_wrapped: The provider wants an object, so the model answers ``{"value": …}``; content is what is inside.
    """

    name: str
    json_schema: dict[str, Any]
    strict_schema: dict[str, Any]
    fingerprint: str
    is_wrapped: bool
    _check: SchemaValidator
    _adapter: TypeAdapter[T] | None

    @overload
    @classmethod
    def of(cls, output_type: type[U]) -> "OutputSchema[U]": ...
    @overload
    @classmethod
    def of(cls, output_type: Any) -> "OutputSchema[Any]": ...
    @classmethod
    def of(cls, output_type: Any) -> "OutputSchema[Any]":
        """Returns the schema of a Python type: model, dataclass, TypedDict, list, union, enum or scalar.

        Raises:
            UsageError: The provider's strict mode cannot carry the type; the message names the field.
        """
        try:
            # By its text as well: int | str equals str | int, but is another schema.
            return _declared(output_type, repr(output_type))
        except TypeError:
            return _declare(output_type)

    @classmethod
    def from_json(cls, json_schema: dict[str, Any], *, name: str | None = None) -> "OutputSchema[Any]":
        """Returns the schema for plain JSON data, from a stored schema or one written by hand.

        Args:
            json_schema: Understood as Pydantic writes it: references to `#/$defs/…`, no `allOf` of several, no `not` or `if`.
            name: Sent to the provider; by default the stored name, else the title.

        Raises:
            UsageError: The provider's strict mode cannot carry the schema; the message names the property.
        """
        try:
            return _build(stored_form(json_schema, name=name), None)
        except UsageError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, SchemaError) as error:
            raise UsageError(f"{json_schema!r:.200} is no JSON schema: {error}") from error

    def read(self, text: str) -> Answer[T]:
        """Returns the valid answer that is in the model's text.

        Characters that Postgres cannot store are replaced first, so that what is found valid is what gets stored. A text that is
        one fenced code block is taken for its inside.

        Raises:
            OutputInvalid: The text is not JSON or does not fit; `raw` and `errors` are in its details.
        """
        raw = storable_text(text)
        data = _parse(storable_json(raw), self.name, raw)
        self._judge(self._check, data, raw)
        content = data["value"] if self.is_wrapped else data
        return Answer(content, self._typed(content, raw))

    def load(self, content: Any) -> T:
        """Returns stored content as the declared type; without a type, the content itself.

        Raises:
            OutputInvalid: The content no longer fits, because the type has changed since.
        """
        return self._typed(content)

    def complaint(self, error: OutputInvalid) -> str:
        """Returns the turn that asks the model to repair its answer: its errors with their paths, of bounded length."""
        return complaint(error, name=self.name, is_wrapped=self.is_wrapped)

    def _typed(self, content: Any, raw: str | None = None) -> T:
        if self._adapter is None:
            return cast(T, content)
        loc = ("value",) if self.is_wrapped and raw is not None else ()
        return cast(T, self._judge(self._adapter, content, raw, loc))

    def _judge(self, validator: SchemaValidator | TypeAdapter[Any], data: Any, raw: str | None, loc: Loc = ()) -> Any:
        # As JSON, for only there a list may become a set and a text a date, however strict the type.
        text = to_json(data)
        found: list[tuple[Loc, str]]
        try:
            return validator.validate_json(text)
        except Exception as error:
            if isinstance(error, ValidationError):
                details = error.errors(include_url=False, include_context=False, include_input=False)
                found = [((*loc, *each["loc"]), each["msg"]) for each in details]
            else:
                # A fault in a validator of the user's class. The answer is paid for and must not get lost with it.
                found = [(loc, f"{type(error).__name__}: {error}")]
            raise invalid(self.name, text.decode() if raw is None else raw, found) from error

    def __repr__(self) -> str:
        return f"OutputSchema({self.name}, {'typed' if self._adapter else 'plain JSON'})"


# Weak: a type is known as long as the cache of `_declared` or an agent holds its schema.
_known: "WeakValueDictionary[str, OutputSchema[Any]]" = WeakValueDictionary()


def known_type(json_schema: dict[str, Any]) -> OutputSchema[Any] | None:
    """Returns the schema with its Python type if this process declared a type with this stored schema, the latest one.

    With it a worker inside the user's process lets the class's own validators judge the answer.
    """
    return _known.get(_fingerprint(json_schema))


@lru_cache(maxsize=512)
def _declared(output_type: Any, _text: str) -> OutputSchema[Any]:
    return _declare(output_type)


def _declare(output_type: Any) -> OutputSchema[Any]:
    adapter = adapter_of(output_type)
    schema = _build(json_schema_of(adapter, name=type_name(output_type)), adapter)
    _known[schema.fingerprint] = schema
    return schema


def _build(json_schema: dict[str, Any], adapter: TypeAdapter[Any] | None) -> OutputSchema[Any]:
    name = json_schema[NAME]
    wrapped = is_wrapped(json_schema)
    return OutputSchema(
        name=name,
        json_schema=json_schema,
        strict_schema=strict_schema(json_schema, name=name),
        fingerprint=_fingerprint(json_schema),
        is_wrapped=wrapped,
        _check=json_check(json_schema, wrapped=wrapped),
        _adapter=adapter,
    )


def _fingerprint(json_schema: dict[str, Any]) -> str:
    return sha256(canonical_json(json_schema).encode()).hexdigest()


def _parse(text: str, name: str, raw: str) -> Any:
    try:
        data = from_json(_unfenced(text), allow_inf_nan=False)
    except ValueError as error:
        raise invalid(name, raw, [((), f"Invalid JSON: {error}")]) from None
    if reason := find_unstorable(data, name="answer"):  # 1e400
        raise invalid(name, raw, [((), reason)])
    return data


def _unfenced(text: str) -> str:
    """Returns the inside of a text that is one fenced code block; JSON itself never begins with a fence."""
    fenced = _FENCED.fullmatch(text)
    return fenced["inside"] if fenced else text
