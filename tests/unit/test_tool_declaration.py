"""`@tool`: what a model is told about a function, and which functions cannot be told of."""

import enum
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from pgrun import Agent, RunContext, Tool, UsageError, tool
from pgrun.run._docstring import read_docstring

CONTEXT = RunContext(run_id="run-1", session_id="s", agent_name="Weather", attempt=1)

GOOGLE = """Finds the weather.

    Looks at a satellite picture.

    Args:
        city: Name of the city,
            in English.
        days (int, optional): How many.

    Returns:
        A sentence.
    """
NUMPY = """Finds the weather.

    Looks at a satellite picture.

    Parameters
    ----------
    city : str
        Name of the city, in English.
    days : int, optional
        How many.

    Returns
    -------
    str
        A sentence.
    """
SPHINX = """Finds the weather.

    Looks at a satellite picture.

    :param city: Name of the city, in English.
    :param int days: How many.
    :returns: A sentence.
    """


class Unit(enum.StrEnum):
    celsius = "C"
    fahrenheit = "F"


class Place(BaseModel):
    """A place on Earth."""

    name: str
    country: str | None = None


def weather(city: str, days: int = 3) -> str:
    return f"{city}: sun for {days} days"


def documented(docstring: str | None) -> Tool[..., Any]:
    def weather(city: str, days: int = 3) -> str:
        return city

    weather.__doc__ = docstring
    return tool(weather)


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX])
def test_the_model_is_told_what_the_docstring_says_in_any_of_the_three_styles(docstring: str) -> None:
    spec = documented(docstring).spec
    assert spec.description == "Finds the weather.\n\nLooks at a satellite picture."
    assert spec.parameters["properties"] == {
        "city": {"type": "string", "title": "City", "description": "Name of the city, in English."},
        "days": {"type": "integer", "title": "Days", "description": "How many. Default: 3."},
    }


@pytest.mark.parametrize("docstring", [None, "", "Args:\n  what", ":param", "A: b\n\n- c: d"])
def test_any_other_docstring_is_a_description_as_it_is(docstring: str | None) -> None:
    assert documented(docstring).spec.description == (docstring or "").replace("  ", "")
    assert "description" not in documented(docstring).spec.parameters["properties"]["city"]


def test_parameters_that_are_described_together_are_each_described() -> None:
    assert read_docstring("Does.\n\nArgs:\n    a, b: Both.").parameters == {"a": "Both.", "b": "Both."}


def test_a_schema_is_strict_where_strict_mode_can_carry_it() -> None:
    spec = tool(weather).spec
    assert spec.strict
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "title": "City"},
            "days": {"type": "integer", "title": "Days", "description": "Default: 3."},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_is_a_tool() -> None:
    def now() -> str:
        return "noon"

    spec = tool(now).spec
    assert spec.strict
    assert spec.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert tool(now).load("", CONTEXT) == tool(now).load("{}", CONTEXT) == {}


@pytest.mark.parametrize("annotation", [dict[str, int], Any, tuple[int, str], list[Any], dict])
def test_a_type_that_strict_mode_cannot_carry_makes_a_schema_that_is_not_strict(annotation: Any) -> None:
    def find(options: Any, limit: int = 5) -> None: ...

    find.__annotations__["options"] = annotation
    spec = tool(find).spec
    assert not spec.strict
    assert spec.parameters["required"] == ["options"]
    assert "propertyOrdering" not in repr(spec.parameters)
    assert not tool(strict=False)(weather).spec.strict
    with pytest.raises(UsageError, match=r"find\.options"):
        tool(strict=True)(find)


def test_a_parameter_without_annotation_may_be_anything() -> None:
    def echo(value):  # type: ignore[no-untyped-def]
        return value

    assert tool(echo).load('{"value": [1, "a"]}', CONTEXT) == {"value": [1, "a"]}


def test_types_with_parts_are_described_and_made_again() -> None:
    def weather(
        place: Place, unit: Unit = Unit.celsius, days: Annotated[int, Field(ge=1, description="Days.")] = 1
    ) -> None:
        """Finds it.

        Args:
            place: Where.
            days: Not shown, for the annotation says it better.
        """

    made = tool(weather)
    properties = made.spec.parameters["properties"]
    assert made.spec.strict
    assert properties["place"]["description"] == "Where."
    assert properties["place"]["required"] == ["name", "country"]
    assert properties["days"]["description"] == "Days. Default: 1."
    assert made.load('{"place": {"name": "Rome"}, "unit": "F", "days": 2}', CONTEXT) == {
        "place": Place(name="Rome"),
        "unit": Unit.fahrenheit,
        "days": 2,
    }
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        made.load('{"place": {"name": "Rome"}, "days": 0}', CONTEXT)


def test_the_context_of_the_run_is_filled_in_and_not_shown() -> None:
    def one(city: str, run: RunContext) -> None: ...
    def two(city: str, *, run: RunContext | None = None) -> None: ...

    for made in (tool(one), tool(two)):
        assert list(made.spec.parameters["properties"]) == ["city"]
        assert made.load('{"city": "Rome"}', CONTEXT) == {"city": "Rome", "run": CONTEXT}
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            made.load('{"city": "Rome", "run": {"run_id": "another"}}', CONTEXT)


def test_names_that_mean_something_to_others_are_names_like_any() -> None:
    def find(schema: str, json: int, _hidden: bool, model_config: str, copy: str) -> None: ...

    given = {"schema": "a", "json": 1, "_hidden": True, "model_config": "b", "copy": "c"}
    assert tool(find).load(str(given).replace("'", '"').replace("True", "true"), CONTEXT) == given


def test_a_tool_is_still_the_function_it_was_made_of() -> None:
    made = tool(weather)
    assert made("Rome", days=2) == "Rome: sun for 2 days"
    assert (made.__name__, made.__wrapped__, repr(made)) == ("weather", weather, "<Tool weather>")  # type: ignore[attr-defined]


def test_options_take_the_place_of_what_the_function_says() -> None:
    made = tool(name="forecast", description="Tells the weather.", repeat="pure", timeout=5)(weather)
    assert (made.spec.name, made.spec.description) == ("forecast", "Tells the weather.")
    assert (made.name, made.repeat, made.timeout) == ("forecast", "pure", 5)


def test_a_tool_is_unsafe_to_repeat_unless_it_says_otherwise() -> None:
    assert tool(weather).repeat == "unsafe"


def test_a_method_of_a_thing_is_a_tool() -> None:
    class Station:
        def __init__(self, name: str) -> None:
            self.name = name

        def report(self, day: int) -> str:
            """Reports."""
            return f"{self.name} {day}"

    made = tool(Station("North").report)
    assert (made.name, made.spec.description, made(3)) == ("report", "Reports.", "North 3")
    assert list(made.spec.parameters["properties"]) == ["day"]
    with pytest.raises(UsageError, match=r'tool "report": parameter self is nothing a model could give'):
        tool(Station.report)


def every(*cities: str) -> None: ...
def anything(**options: str) -> None: ...
def positional(city: str, /) -> None: ...
def calls_back(city: str, when_done: Callable[[], None]) -> None: ...
def holds(city: str, lock: "threading.Lock") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def yields(city: str):  # type: ignore[no-untyped-def]
    yield city


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (every, r'tool "every": \*cities: str cannot be given by name'),
        (anything, r'tool "anything": \*\*options: str cannot be given by name'),
        (positional, r'tool "positional": city: str cannot be given by name'),
        (calls_back, r'tool "calls_back": parameter when_done has a type without a JSON schema'),
        (holds, r'tool "holds": an annotation cannot be resolved: name .threading. is not defined'),
        (yields, r"yields; a tool returns its result"),
        (lambda city: city, r"tool name '<lambda>': letters, digits, _ and -"),
        (partial(weather, city="Rome"), r"@tool: functools.partial.* is no function; write one that calls it"),
        (Place, r"@tool goes before a function, not <class"),
        (5, r"@tool goes before a function, not 5"),
    ],
)
def test_a_function_that_cannot_be_described_is_refused_when_it_is_declared(function: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tool(function)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "two words"}, "tool name 'two words'"),
        ({"name": ""}, "tool name ''"),
        ({"name": "x" * 65}, "at most 64"),
        ({"repeat": "sometimes"}, "repeat='sometimes' is none of pure, idempotent, unsafe"),
        ({"timeout": 0}, "timeout=0: seconds, more than 0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"timeout": "5"}, "timeout='5'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tool(**options)(weather)


def test_an_agent_takes_tools_and_plain_functions() -> None:
    def forecast(city: str) -> str:
        return city

    agent = Agent(model="gpt-5-mini", tools=[tool(weather), forecast], tool_choice="weather", tool_call_limit=3)
    toolset = agent.definition.tools
    assert [spec.name for spec in toolset.specs] == ["weather", "forecast"]
    assert (toolset.choice, toolset.call_limit, toolset.max_turns) == ("weather", 3, 30)


@pytest.mark.parametrize(
    "choice", [{"type": "function", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}]
)
def test_a_choice_may_be_written_as_in_the_apis(choice: dict[str, Any]) -> None:
    assert Agent(model="gpt-5-mini", tools=[weather], tool_choice=choice).definition.tools.choice == "weather"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": [5]}, "tools: 5 is neither a function nor a tool"),
        ({"tools": [{"type": "web_search"}]}, "is neither a function nor a tool"),
        ({"tools": weather}, "tools: a list of functions, not <function weather"),
        ({"tools": [Place]}, "is neither a function nor a tool"),
        ({"tools": [weather, tool(weather)]}, "tools: weather is there twice"),
        ({"tools": [weather], "tool_choice": "forecast"}, "is none of auto, none, required, weather"),
        ({"tools": [weather], "tool_choice": {}}, "tool_choice={} is none of"),
        ({"tools": [weather], "tool_call_limit": 0}, "tool_call_limit=0: a whole number, 1 or more"),
        ({"tools": [weather], "max_turns": 0}, "max_turns=0: a whole number, 1 or more"),
    ],
)
def test_an_agent_refuses_what_is_no_tool(options: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Agent(model="gpt-5-mini", **options)
