"""The terms of a run: what contradicts itself is refused before anything is stored, and nothing said is a plain run."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy, Task, UsageError
from pgrun.db.placing import _COLUMNS
from pgrun.db.records import NewRun
from pgrun.db.statements import sql_dir
from pgrun.run._terms_said import terms_of


@pytest.fixture
def db() -> PostgresDb:
    return PostgresDb("postgresql://nowhere.invalid/app", worker="external")


@pytest.fixture
def noop(db: PostgresDb) -> Task[[], None]:
    @db.task
    async def noop() -> None: ...

    return noop


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"due_at": datetime(2050, 1, 1)}, "without a time zone may mean any moment"),
        ({"due_at": 60}, "due_at=60: a datetime with a time zone"),
        ({"due_at": datetime(2050, 1, 1, tzinfo=UTC), "delay": 1}, "delay= and due_at= say the same"),
        ({"expires": datetime(2050, 1, 1)}, "without a time zone"),
        ({"expires": 0}, "expires=0: seconds, more than 0"),
        ({"deadline": "1h"}, "deadline='1h': seconds"),
        ({"timeout": -1}, "timeout=-1: seconds"),
        ({"timeout": float("nan")}, "timeout=nan: seconds"),
        ({"tags": "import"}, "tags='import': a list of texts"),
        ({"tags": ["a", ""]}, "tags[1]='': a text"),
        ({"key": ""}, "key='': a text"),
        ({"key": "x" * 1001}, "key: at most 1000 characters"),
        ({"key": "x", "key_scope": "period"}, "key_scope='period' is none of pending, unfinished, ever"),
        ({"key": "x", "key_scope": "ever", "key_period": 5}, "key_scope= and key_period= both say"),
        ({"key": "x", "max_delay": 5}, 'max_delay= bounds on_duplicate="debounce"'),
        ({"key": "x", "on_duplicate": "both"}, "on_duplicate='both' is none of keep, replace, debounce"),
    ],
)
def test_what_cannot_be_is_refused_by_name(noop: Task[[], None], options: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        noop.options(**options)
    assert says in str(caught.value)


def test_where_nothing_is_said_it_is_a_plain_run() -> None:
    assert terms_of({"delay": 5, "key": None, "tags": None}) is None


def test_only_what_has_not_started_can_be_replaced_so_that_is_how_long_its_key_is_held() -> None:
    scopes = [terms_of({"key": "7", "on_duplicate": mode}) for mode in (None, "keep", "replace", "debounce")]
    assert [each and each.key_scope for each in scopes] == [None, None, "pending", "pending"]
    said = terms_of({"key": "7", "on_duplicate": "replace", "key_scope": "unfinished"})
    assert said is not None
    assert said.key_scope == "unfinished"


async def test_an_agent_without_a_database_says_what_it_cannot() -> None:
    agent = Agent(name="Homeless", model=OpenAIResponses("m", api_key="k"))
    with pytest.raises(UsageError, match='Agent "Homeless" has no db: without one, runs have no key, tags'):
        await agent.arun("hi", key="7", tags=["a"])


def test_a_task_says_its_attempts_and_time_out_in_short(db: PostgresDb) -> None:
    @db.task(max_attempts=2, timeout=30)
    async def brief() -> None: ...

    assert (brief.retry, brief.timeout) == (RetryPolicy(max_attempts=2), 30)
    wrongs: list[dict[str, Any]] = [{"max_attempts": 2, "retry": RetryPolicy()}, {"timeout": 0}, {"max_attempts": 0}]
    for wrong in wrongs:
        with pytest.raises(UsageError):
            db.task(**wrong)(lambda: None)


def test_whatever_a_plain_run_is_stored_with_a_run_under_terms_is_too() -> None:
    of_each = {"run_id", "input", "metadata", "terms", "chosen_id"}
    assert {*NewRun._fields} - of_each == {*_COLUMNS}
    plain = (sql_dir() / "queries" / "submit_run.sql").read_text(encoding="utf-8")
    functions = (sql_dir() / "migrations" / "0006_submit.sql").read_text(encoding="utf-8")
    assert columns(plain) <= columns(functions[functions.index("create function pgrun._insert_runs") :])


def columns(text: str) -> set[str]:
    """Those that the first insert of a text names."""
    found = re.search(r"insert into pgrun\.jobs \((.*?)\)", text, re.DOTALL)
    assert found is not None
    return {name.strip() for name in found[1].split(",")}
