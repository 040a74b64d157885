"""Reading an answer: what is valid, what is stored, and how the model hears of its errors."""

import json
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, model_validator

from pgrun.errors import OutputInvalid
from pgrun.run.output import Answer, OutputSchema


class Fact(BaseModel):
    city: str
    people: int = Field(ge=0)
    founded: date | None = None


class Facts(BaseModel):
    facts: list[Fact]


class Span(BaseModel):
    start: int
    end: int

    @model_validator(mode="after")
    def in_order(self) -> "Span":
        if self.end < self.start:
            raise ValueError("end lies before start")
        return self


def fail_with_key(value: int) -> int:
    return {1: value}[value]


def both(output_type: Any) -> list[OutputSchema[Any]]:
    typed = OutputSchema.of(output_type)
    return [typed, OutputSchema.from_json(json.loads(json.dumps(typed.json_schema)))]


def test_an_answer_has_the_json_to_store_and_the_typed_value() -> None:
    text = '{"facts": [{"city": "Rome", "people": 2800000, "founded": "0753-04-21"}]}'
    typed, plain = both(Facts)
    answer = typed.read(text)
    assert answer.content == json.loads(text)
    assert answer.value == Facts(facts=[Fact(city="Rome", people=2800000, founded=date(753, 4, 21))])
    assert typed.load(answer.content) == answer.value
    assert plain.read(text) == Answer(json.loads(text), json.loads(text))
    assert plain.load(answer.content) == answer.content


def test_content_is_what_the_model_wrote_not_what_the_type_makes_of_it() -> None:
    answer = OutputSchema.of(Facts).read('{"facts": [{"city": "Rome", "people": 1}]}')
    assert answer.content == {"facts": [{"city": "Rome", "people": 1}]}
    assert answer.value.facts[0].founded is None


@pytest.mark.parametrize(
    ("output_type", "text", "value"),
    [
        (str, '{"value": "hi"}', "hi"),
        (list[date], '{"value": ["2026-01-31"]}', [date(2026, 1, 31)]),
        (Decimal, '{"value": "1.10"}', Decimal("1.10")),
        (Decimal, '{"value": 1.5}', Decimal("1.5")),
        (set[int], '{"value": [1, 2]}', {1, 2}),
        (int | None, '{"value": null}', None),
        (int | str, '{"value": "1"}', "1"),
        (Literal[True, "x"], '{"value": true}', True),
    ],
)
def test_what_is_no_object_is_unwrapped(output_type: Any, text: str, value: Any) -> None:
    typed, plain = both(output_type)
    content = json.loads(text)["value"]
    assert typed.read(text) == Answer(content, value)
    assert plain.read(text) == Answer(content, content)
    assert typed.load(content) == value


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"value": 1}\n```',
        '\n```JSON \n{"value":\n1}\n  ```\n',
        '```\n{"value": 1}\n```',
    ],
)
def test_one_fenced_block_is_taken_for_its_inside(text: str) -> None:
    assert OutputSchema.of(int).read(text).value == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one",
        'Here: {"value": 1}',
        'Here:\n```json\n{"value": 1}\n```',
        '```json\n{"value": 1}\n```\n```json\n{"value": 2}\n```',
        '```json\n```json\n{"value": 1}\n```\n```',
        '{"value": 1',
        '{"value": 1} {"value": 1}',
        "{'value': 1}",
        '{"value": NaN}',
        '{"value": 1e400}',
        "[" * 5000,
        '{"value": 1' + "0" * 5000 + "}",
    ],
)
def test_what_is_not_json_is_invalid_and_kept(text: str) -> None:
    for schema in both(float):
        with pytest.raises(OutputInvalid) as caught:
            schema.read(text)
        assert caught.value.details["raw"] == text
        assert len(caught.value.details["errors"]) == 1


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ('{"facts": [{"city": 5, "people": 1}]}', ["facts", 0, "city"], "valid string"),
        ('{"facts": [{"city": "a", "people": "1"}]}', ["facts", 0, "people"], "valid integer"),
        ('{"facts": [{"city": "a", "people": 1.0}]}', ["facts", 0, "people"], "valid integer"),
        ('{"facts": [{"city": "a", "people": true}]}', ["facts", 0, "people"], "valid integer"),
        ('{"facts": [{"city": "a", "people": -1}]}', ["facts", 0, "people"], "greater than or equal to 0"),
        ('{"facts": [{"city": "a"}]}', ["facts", 0, "people"], "Field required"),
        ('{"facts": [], "more": 1}', ["more"], "Extra inputs"),
        ('{"facts": [{"city": "a", "people": 1, "founded": "soon"}]}', ["facts", 0, "founded"], "should be"),
        ('{"facts": {}}', ["facts"], "valid array"),
        ("[]", [], "an object"),
        ("null", [], "an object"),
    ],
)
def test_a_worker_without_the_type_finds_the_same_errors(text: str, path: list[str | int], reason: str) -> None:
    found = []
    for schema in both(Facts):
        with pytest.raises(OutputInvalid) as caught:
            schema.read(text)
        found.append(caught.value.details)
    assert found[0] == found[1]
    assert found[0]["raw"] == text
    (error,) = found[0]["errors"]
    assert error["loc"] == path
    assert reason in error["msg"]


def test_the_validators_of_the_class_have_a_say() -> None:
    typed, plain = both(Span)
    assert plain.read('{"start": 2, "end": 1}').content == {"start": 2, "end": 1}
    with pytest.raises(OutputInvalid, match="end lies before start"):
        typed.read('{"start": 2, "end": 1}')
    with pytest.raises(OutputInvalid) as caught:
        OutputSchema.of(list[Span]).read('{"value": [{"start": 2, "end": 1}]}')
    assert caught.value.details["errors"][0]["loc"] == ["value", 0]


def test_a_fault_in_a_validator_does_not_lose_the_answer() -> None:
    schema = OutputSchema.of(Annotated[int, AfterValidator(fail_with_key)])
    with pytest.raises(OutputInvalid) as caught:
        schema.read('{"value": 2}')
    assert caught.value.details == {"raw": '{"value": 2}', "errors": [{"loc": ["value"], "msg": "KeyError: 2"}]}
    assert isinstance(caught.value.__cause__, KeyError)


def test_what_cannot_be_stored_is_replaced_before_it_is_judged() -> None:
    text = r'{"value": ["a\u0000b", "\ud83d", "\ud83d\ude00", "\\u0000", "' + "\x00" + r'\uDC00"]}'
    answer = OutputSchema.of(list[str]).read(text)
    assert answer.content == answer.value == ["a\ufffdb", "\ufffd", "😀", r"\u0000", "\ufffd\ufffd"]
    three = OutputSchema.of(Annotated[str, Field(pattern="^\x01*$")])
    with pytest.raises(OutputInvalid) as caught:
        three.read('{"value": "\\u0000"}\x00')
    assert "\x00" not in json.dumps(caught.value.details, ensure_ascii=False)


def test_loading_content_that_no_longer_fits_says_where() -> None:
    with pytest.raises(OutputInvalid) as caught:
        OutputSchema.of(list[Fact]).load([{"city": "Rome"}])
    assert caught.value.details == {
        "raw": '[{"city":"Rome"}]',
        "errors": [{"loc": [0, "people"], "msg": "Field required"}],
    }


def test_the_complaint_names_each_error_with_its_path() -> None:
    schema = OutputSchema.of(Facts)
    with pytest.raises(OutputInvalid) as caught:
        schema.read('{"facts": [{"city": 5, "people": -1}]}')
    assert schema.complaint(caught.value) == (
        "Your answer does not match the JSON schema Facts:\n"
        "- facts[0].city: Input should be a valid string\n"
        "- facts[0].people: Input should be greater than or equal to 0\n"
        "Answer again, completely and corrected, with JSON and nothing else."
    )


def test_messages_are_bounded() -> None:
    schema = OutputSchema.of(list[Literal["a", "b"]])
    with pytest.raises(OutputInvalid) as caught:
        schema.read(json.dumps({"value": ["z" * 1000] * 1000, "k" * 5000: 1}))
    assert len(caught.value.details["errors"]) == 20
    assert str(caught.value).endswith("and 998 more")
    complaint = schema.complaint(caught.value)
    assert 'a JSON object with the single key "value"' in complaint
    assert len(complaint) < 8000
