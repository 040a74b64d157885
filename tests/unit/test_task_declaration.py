"""Which functions can be tasks: what cannot be stored or told apart is refused where it is declared, by name."""

import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pgrun import PostgresDb, RetryPolicy, Task, UsageError
from pgrun.run._arguments import Arguments
from pgrun.task import registered_tasks

NOWHERE = "postgresql://nobody@localhost:1/nothing"


@pytest.fixture
def nowhere() -> PostgresDb:
    """Declaring and calling a task touches no database."""
    return PostgresDb(NOWHERE)


def with_args(*names: str) -> None: ...
def with_kwargs(**names: str) -> None: ...
def by_position_only(name: str, /) -> None: ...
def with_a_lock(lock: threading.Lock) -> None: ...
def with_a_class_of_its_own(db: PostgresDb) -> None: ...
def with_a_nested_one(found: dict[str, list[threading.Event]]) -> None: ...
def that_returns_one() -> threading.Lock:
    return threading.Lock()


def unresolvable(city: "City") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def unresolvable_result() -> "City": ...  # type: ignore[name-defined]  # noqa: F821
def no_type(city: "1 +") -> None: ...  # type: ignore[valid-type]  # noqa: F722


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (with_args, r'task "with_args": \*names: str cannot be given by name'),
        (with_kwargs, r'task "with_kwargs": \*\*names: str cannot be given by name'),
        (by_position_only, r"name: str cannot be given by name"),
        (with_a_lock, r'task "with_a_lock": parameter lock has a type without a JSON form'),
        (with_a_class_of_its_own, r"parameter db has a type without a JSON form: .*PostgresDb"),
        (with_a_nested_one, r"parameter found has a type without a JSON form"),
        (that_returns_one, r'task "that_returns_one": its result has a type without a JSON form'),
        (unresolvable, r'task "unresolvable": an annotation cannot be resolved: .*City'),
        (unresolvable_result, r'task "unresolvable_result": an annotation cannot be resolved: .*City'),
        (no_type, r'task "no_type": an annotation cannot be resolved'),
        (partial(with_args), r"task name=''"),
        (PostgresDb, r"@db.task goes before a function, not <class"),
        (7, r"@db.task goes before a function, not 7"),
    ],
)
def test_what_cannot_be_a_task_is_refused_by_name(
    nowhere: PostgresDb, function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        nowhere.task(function)
    assert not registered_tasks()


@pytest.mark.parametrize("option", [{"name": "a\x00"}, {"queue": ""}, {"name": 7}])
def test_a_name_or_queue_that_cannot_be_is_refused(nowhere: PostgresDb, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"task {next(iter(option))}"):
        nowhere.task(**option)(len)


def test_any_name_of_a_parameter_will_do() -> None:
    def function(json: str, copy: int, schema: int, model_config: int, _private: int, cls: int, total: int) -> None: ...

    names = ("json", "copy", "schema", "model_config", "_private", "cls", "total")
    given = {name: str(number) if name == "json" else number for number, name in enumerate(names)}
    arguments = Arguments("task", function)
    assert arguments.load(arguments.dump((), given).decode()) == given
    assert arguments.load(arguments.dump(tuple(given.values()), {}).decode()) == given


def test_a_bound_method_is_called_without_its_self(nowhere: PostgresDb) -> None:
    class Mailer:
        def send(self, to: str) -> str:
            return f"to {to}"

    task = nowhere.task(Mailer().send)
    assert task.arguments.dump(("you",), {}) == b'{"to":"you"}'
    assert task("you") == "to you"


async def test_a_task_is_still_its_function(nowhere: PostgresDb) -> None:
    @nowhere.task(name="double", queue="sums", retry=RetryPolicy(max_attempts=2))
    async def twice(number: int) -> int:
        """Doubles."""
        return 2 * number

    assert await twice(4) == 8
    assert inspect.getdoc(twice) == "Doubles."
    assert inspect.signature(twice).parameters.keys() == {"number"}
    assert repr(twice) == "<Task double>"
    assert (twice.name, twice.queue, twice.retry.max_attempts) == ("double", "sums", 2)
    assert registered_tasks() == {"double": twice}


def test_attributes_of_the_function_do_not_become_those_of_the_task(nowhere: PostgresDb) -> None:
    def work() -> None: ...

    work.__dict__.update(name="other", queue="other", function=None)
    task = nowhere.task(work)
    assert (task.name, task.queue, task.function) == ("work", "default", work)


def test_a_task_of_one_database_can_be_one_of_another_too(nowhere: PostgresDb) -> None:
    @nowhere.task
    def work(number: int) -> int:
        return number

    elsewhere = PostgresDb(NOWHERE, schema="elsewhere")
    again: Task[[int], int] = Task(elsewhere, work, name="work elsewhere")
    assert again._db is elsewhere
    assert again(7) == 7


def make(nowhere: PostgresDb, name: str | None = None) -> Task[[], int]:
    def work() -> int:
        return 1

    return nowhere.task(name=name)(work)


def test_two_functions_of_one_name_are_refused(nowhere: PostgresDb) -> None:
    make(nowhere)

    def work() -> None: ...

    with pytest.raises(UsageError, match=r'task "work" is .*make.*work already; give .*work another name='):
        nowhere.task(work)
    nowhere.task(name="other")(work)


def test_a_function_that_is_declared_again_replaces_itself(nowhere: PostgresDb) -> None:
    """As when a module is loaded again, or a cell of a notebook is."""
    make(nowhere)
    assert registered_tasks() == {"work": make(nowhere)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, r"no option colour="),
        ({"priority": 40_000}, r"priority=40000: a whole number"),
        ({"delay": -1}, r"delay=-1: seconds"),
        ({"queue": ""}, r"queue=''"),
        ({"run_id": "r"}, r"run_id"),
        ({"max_attempts": 0}, r"max_attempts=0"),
        ({"metadata": [1]}, r"metadata=\[1\]: a dict"),
        ({"metadata": {"a": "\x00"}}, r"metadata\.a: contains NUL"),
        ({"session_id": 7}, r"session_id=7"),
    ],
)
def test_an_option_that_cannot_be_is_refused(nowhere: PostgresDb, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(nowhere).options(**options)


def test_options_add_up_and_leave_the_task_as_it_was(nowhere: PostgresDb) -> None:
    task = make(nowhere)
    urgent = task.options(priority=-1)
    assert urgent.options(queue="mail")._options == {"priority": -1, "queue": "mail"}
    assert (task._options, urgent._options) == ({}, {"priority": -1})
    assert registered_tasks() == {"work": task}
