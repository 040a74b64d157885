"""What the provider's strict mode does not accept is refused, in its words and at its place."""

from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field, RootModel

from pgrun.testing import ModelServer
from pgrun.testing.strictness import SchemaRejected, check_strict


class Inner(BaseModel):
    value: int


class Fine(BaseModel):
    text: str = Field(pattern="^a+$", description="A text")
    number: float = Field(ge=0, multiple_of=0.5)
    choice: Literal["a", "b"]
    mixed: Literal["a", 1]
    maybe: Inner | None
    inner: Inner = Field(description="Inlined by the client")
    listed: list["Fine"] = Field(min_length=1, max_length=3)


def test_accepts_what_is_documented() -> None:
    check_strict(to_strict_json_schema(Fine))


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


NEEDS_CLOSED = "'additionalProperties' is required to be supplied and to be false."
NEEDS_REQUIRED = "'required' is required to be supplied and to be an array including every key in properties."


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": {"type": "string"}}, """got 'type: "array"'"""),
        ({"anyOf": [obj(), obj()]}, """got 'type: "None"'"""),
        ({**obj(), "anyOf": [obj()]}, "In context=(), 'anyOf' is not permitted."),
        ({"type": "object", "properties": {}}, f"In context=(), {NEEDS_CLOSED}"),
        ({**obj(x={"type": "string"}), "required": []}, f"In context=(), {NEEDS_REQUIRED} Missing 'x'."),
        ({**obj(), "required": ["x"]}, f"In context=(), {NEEDS_REQUIRED} Extra required key 'x' supplied."),
        (obj(x={"type": ["object", "null"]}), f"In context=('properties', 'x'), {NEEDS_CLOSED}"),
        (obj(x={"type": "object", "additionalProperties": {"type": "integer"}}), NEEDS_CLOSED),
        (obj(x={}), "In context=('properties', 'x'), schema must have a 'type' key."),
        (obj(x={"description": "any"}), "schema must have a 'type' key."),
        (obj(x={"type": "array"}), "In context=('properties', 'x'), array schema missing items."),
        (obj(x={"type": "array", "items": {}}), "In context=('properties', 'x', 'items'), schema must have"),
        (obj(x={"oneOf": [{"type": "string"}]}), "In context=('properties', 'x'), 'oneOf' is not permitted."),
        (obj(x={"allOf": [{"type": "string"}]}), "'allOf' is not permitted."),
        (obj(x={"type": "string", "default": "a"}), "'default' is not permitted."),
        (obj(x={"type": "string", "minLength": 1}), "'minLength' is not permitted."),
        (obj(x={"type": "string", "format": "uri"}), "In context=('properties', 'x'), 'uri' is not a valid format."),
        (obj(x={"type": "array", "items": {"type": "string"}, "uniqueItems": True}), "'uniqueItems' is not permitted."),
        (obj(x={"type": "array", "prefixItems": [], "items": {"type": "string"}}), "'prefixItems' is not permitted."),
        (obj(x={"anyOf": [{"type": "null"}, {}]}), "In context=('properties', 'x', 'anyOf', '1'), schema must have"),
        (obj(x={"$ref": "#/$defs/A"}), "In context=('properties', 'x'), reference can only point to definitions"),
        (obj(x={"$ref": "other.json"}), "reference can only point to definitions"),
        (
            {**obj(x={"$ref": "#/$defs/A", "title": "X", "description": "x"}), "$defs": {"A": obj()}},
            "In context=('properties', 'x'), $ref cannot have keywords {'description', 'title'}.",
        ),
        ({**obj(), "$defs": {"A": {"type": "object"}}}, f"In context=('$defs', 'A'), {NEEDS_CLOSED}"),
        (obj(**{f"p{n}": {"type": "string"} for n in range(5001)}), "more than 5000 object properties"),
        (obj(x={"enum": list(range(1001))}), "more than 1000 enum values"),
    ],
)
def test_rejects(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaRejected) as caught:
        check_strict(schema)
    assert message in str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    schema = obj()
    for _ in range(levels - 1):
        schema = obj(x=schema)
    return schema


def chained(levels: int) -> dict[str, Any]:
    defs = {f"D{n}": obj(x={"$ref": f"#/$defs/D{n + 1}"}) for n in range(2, levels)}
    return {**obj(x={"$ref": "#/$defs/D2"}), "$defs": {**defs, f"D{levels}": obj()}}


@pytest.mark.parametrize("make", [nested, chained])
def test_depth_is_limited(make: Any) -> None:
    check_strict(make(10))
    with pytest.raises(SchemaRejected, match="10 levels of nesting"):
        check_strict(make(11))


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with ModelServer() as server, OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
        yield client


class Mapping(BaseModel):
    scores: dict[str, int]


class Names(RootModel[list[str]]):
    pass


@pytest.mark.parametrize(("model", "place"), [(Mapping, "context=('properties', 'scores')"), (Names, 'type: "array"')])
def test_the_client_sees_the_providers_error(client: OpenAI, model: type[BaseModel], place: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.parse(model="m", input="x", text_format=model)

    assert f"Invalid schema for response_format '{model.__name__}': " in caught.value.message
    assert place in caught.value.message
    assert (caught.value.param, caught.value.code) == ("text.format.schema", "invalid_json_schema")


def test_a_schema_that_is_not_strict_may_be_any(client: OpenAI) -> None:
    schema = Mapping.model_json_schema()
    response = client.responses.create(
        model="m", input="x", text={"format": {"type": "json_schema", "name": "m", "schema": schema}}
    )
    assert response.output_text == '{"scores": {}}'
