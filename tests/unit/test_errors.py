"""The tree of errors, and how a failed run is raised again where its result is awaited."""

import inspect
import re
from typing import Any

import pytest

from pgrun import errors
from pgrun.errors import (
    AttemptError,
    ModelUnavailable,
    OutputInvalid,
    PgrunError,
    RunCancelled,
    RunFailed,
    RunNotFound,
    UsageError,
    WaitTimeout,
)
from pgrun.run.base import RunFailure, RunOutput, RunStatus, result_of

CLASSES = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and value is not Any}
ATTEMPT_ERRORS = sorted(name for name, value in CLASSES.items() if issubclass(value, AttemptError))


def failed(failure: RunFailure | None) -> RunOutput[Any]:
    return RunOutput(run_id="r1", status=RunStatus.error, attempt=3, error=failure)


def test_the_tree_is_as_drawn() -> None:
    parents = {name: value.__bases__[0].__name__ for name, value in CLASSES.items()}
    assert drawn_parents(errors.__doc__ or "") == parents | {"PgrunError": ""}


def test_errors_are_also_what_python_would_raise() -> None:
    assert issubclass(UsageError, ValueError)
    assert issubclass(WaitTimeout, TimeoutError)
    with pytest.raises(TimeoutError) as caught:
        raise WaitTimeout("too late", run_id="r1")
    assert str(caught.value) == "too late"


def test_ids_are_attributes() -> None:
    run = failed(None)
    for kind in (RunNotFound, RunFailed, RunCancelled, WaitTimeout):
        error = kind("no", run_id="r1", run=run)
        assert (error.run_id, error.run, str(error)) == ("r1", run, "no")
    assert RunFailed("no", run_id="r1").details == {}


def test_details_of_an_attempt_keep_only_what_is_known() -> None:
    error = ModelUnavailable("later", retry_after=2.5, status_code=429, code=None)
    assert error.details == {"retry_after": 2.5, "status_code": 429}
    assert error.retry_after == 2.5
    assert error.metrics is None
    assert ModelUnavailable("later").details == {}


@pytest.mark.parametrize("name", ATTEMPT_ERRORS)
def test_a_failed_run_is_caused_by_the_error_of_its_last_attempt(name: str) -> None:
    failure = RunFailure.model_validate({"type": name, "message": "why", "attempt": 3, "code": "c"})
    with pytest.raises(RunFailed) as caught:
        result_of(failed(failure))
    cause = caught.value.__cause__
    assert isinstance(cause, AttemptError)
    assert (type(cause).__name__, str(cause)) == (name, "why")
    assert cause.details["code"] == "c"
    assert str(caught.value) == f"run r1 failed in attempt 3: {name}: why"
    assert (caught.value.run_id, caught.value.error_type) == ("r1", name)
    assert caught.value.details == {"message": "why", "attempt": 3, "code": "c"}


def test_what_was_recorded_comes_back_with_the_error() -> None:
    failure = RunFailure.model_validate(
        {"type": "OutputInvalid", "message": "no", "raw": "{", "errors": [{"msg": "x"}]}
    )
    with pytest.raises(RunFailed) as caught:
        result_of(failed(failure))
    cause = caught.value.__cause__
    assert isinstance(cause, OutputInvalid)
    assert cause.details == {"raw": "{", "errors": [{"msg": "x"}]}
    assert caught.value.run is not None
    assert caught.value.run.error == failure


@pytest.mark.parametrize("name", ["KeyError", "UnknownName", "UsageError", "RunFailed", "Any", "__doc__", ""])
def test_a_name_that_is_no_attempt_error_still_has_a_cause(name: str) -> None:
    with pytest.raises(RunFailed) as caught:
        result_of(failed(RunFailure(type=name, message="why")))
    assert type(caught.value.__cause__) is AttemptError
    assert caught.value.error_type == name


def test_a_failure_without_a_record_is_raised_all_the_same() -> None:
    with pytest.raises(RunFailed, match="no error was recorded"):
        result_of(failed(None))


def test_a_completed_run_has_its_content_and_a_cancelled_one_says_so() -> None:
    assert result_of(RunOutput(run_id="r1", status=RunStatus.completed, content={"a": 1})) == {"a": 1}
    assert result_of(RunOutput(run_id="r1", status=RunStatus.completed, content=None)) is None
    with pytest.raises(RunCancelled, match="run r1 was cancelled") as caught:
        result_of(RunOutput(run_id="r1", status=RunStatus.cancelled))
    assert caught.value.run is not None


def test_every_error_derives_from_one() -> None:
    assert all(issubclass(value, PgrunError) for value in CLASSES.values())


def drawn_parents(text: str) -> dict[str, str]:
    """Each class of the drawing in the docstring with the one it hangs from, "" for the root."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for indent, name in re.findall(r"^    ([ │├└─]*)([A-Z]\w+)", text, re.MULTILINE):
        depth = len(indent) // 4
        above[depth:] = [name]
        parents[name] = above[depth - 1] if depth else ""
    return parents
