"""The whole public API has a form for code without an event loop: each `a…` method has a twin without the a."""

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import pytest

import pgrun
from pgrun import Agent, PostgresDb, Run, RunOutput, Task, UsageError, testing
from pgrun.testing import sync

NOT_FOR_CALLERS = {
    "OpenAIChat": {"call": "the loop of an agent asks a model"},
    "OpenAIResponses": {"call": "the same", "stop": "workers and cancelling callers tell the provider"},
    "PostgresDb": {
        "approve": "agents: acontinue_run",
        "connected": "everything here begins with it",
        "open_stream": "runs: aevents",
        "place": "agents: arun; tasks: asubmit",
        "submit": "agents: arun; tasks: asubmit",
        "submit_call": "tasks: asubmit",
        "submit_calls": "tasks: asubmit_many",
        "wait_for": "runs: aresult",
    },
    "RunOutput": {"awaited": "aresult"},
    "TaskContext": {"sleep": "plain functions have a SyncTaskContext", "step": "the same"},
    "Task": {"execute": "workers"},
    "Tool": {"execute": "the loop of an agent"},
    "Worker": {"drain": "async with Worker(db); without an event loop a worker is a daemon, or embedded"},
}
"""Asynchronous methods without a twin, and who calls them or what callers use."""

CLASSES = {name: value for name in pgrun.__all__ if inspect.isclass(value := getattr(pgrun, name))}


def methods_of(kind: type) -> dict[str, Callable[..., Any]]:
    return {
        name: getattr(kind, name) for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))
    }


def is_async(method: Callable[..., Any]) -> bool:
    returns = str(inspect.signature(method).return_annotation) if inspect.isfunction(method) else ""
    return (
        inspect.iscoroutinefunction(method)
        or inspect.isasyncgenfunction(method)
        or "AsyncGenerator" in returns
        or "Coroutine" in returns
    )


TWINS = [
    (name, method, method[1:])
    for name, kind in CLASSES.items()
    for method, function in methods_of(kind).items()
    if method.startswith("a") and (is_async(function) or hasattr(kind, method[1:]))
    if method not in NOT_FOR_CALLERS.get(name, ())
]


class _Handle:
    async def wait(self, run_id: str, timeout: float | None) -> RunOutput[Any]:
        raise AssertionError("refused before")

    def events(self, run_id: str, after: int) -> AsyncGenerator[Any, None]:
        raise AssertionError("refused before")

    async def look(self, run_id: str) -> RunOutput[Any]:
        raise AssertionError("refused before")

    async def cancel(self, run_id: str) -> bool:
        raise AssertionError("refused before")

    def read(self, row: Mapping[str, Any]) -> RunOutput[Any]:
        raise AssertionError("refused before")


@pytest.fixture
def holders() -> dict[str, Any]:
    """One of each class that has twins."""
    db = PostgresDb("postgresql://localhost/nothing")

    def function() -> None: ...

    return {
        "Agent": Agent(model="gpt-5-mini", db=db),
        "PostgresDb": db,
        "Run": Run("01900000-0000-7000-8000-000000000000", _Handle()),
        "RunOutput": RunOutput(run_id="01900000-0000-7000-8000-000000000000"),
        "Task": Task(db, function),
    }


def test_what_is_asynchronous_has_a_twin_or_is_not_for_callers() -> None:
    found = {
        name: {method for method, function in methods_of(kind).items() if is_async(function)}
        - {method for holder, method, twin in TWINS if holder == name and hasattr(kind, twin)}
        for name, kind in CLASSES.items()
    }
    assert {name: methods for name, methods in found.items() if methods} == {
        name: {*reasons} for name, reasons in NOT_FOR_CALLERS.items()
    }
    assert len(TWINS) > 20


@pytest.mark.parametrize(("holder", "method", "twin"), TWINS)
def test_a_twin_takes_the_same_and_says_what_it_is_the_twin_of(holder: str, method: str, twin: str) -> None:
    ours, theirs = getattr(CLASSES[holder], twin), getattr(CLASSES[holder], method)
    assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
    assert not is_async(ours)
    assert inspect.getdoc(ours) == f"The same as `{method}`, for code without an event loop."


@pytest.mark.parametrize(("holder", "method", "twin"), TWINS)
async def test_inside_an_event_loop_a_twin_says_what_to_await(
    holders: dict[str, Any], holder: str, method: str, twin: str
) -> None:
    bound = getattr(holders[holder], twin)
    required = [each for each in inspect.signature(bound).parameters.values() if each.default is each.empty]
    args: list[Any] = [{} for each in required if each.kind is each.POSITIONAL_OR_KEYWORD]
    with pytest.raises(UsageError, match=rf"would block the running event loop; .*{method}\(…\) instead"):
        bound(*args)


async def test_a_block_with_a_database_says_what_to_await_too(holders: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="would block the running event loop"), holders["PostgresDb"]:
        pass


def test_the_functions_for_tests_have_twins_of_the_same_name() -> None:
    for name in sync.__all__:
        ours, theirs = getattr(sync, name), getattr(testing, name)
        assert ours is theirs or inspect.iscoroutinefunction(theirs)
        assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()
