"""How a task says what follows from its attempt: by what it raises, and by the rules for that."""

from collections.abc import Iterable
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.rows import row_of
from support.settings import SOON
from support.tables import one

from pgrun import (
    Discard,
    PostgresDb,
    Retry,
    RetryPolicy,
    Run,
    RunCancelled,
    RunFailed,
    Snooze,
    TaskContext,
    UsageError,
    Worker,
)


class GreaterThanAnException(BaseException):
    pass


def raising(
    db: PostgresDb, errors: Iterable[BaseException], *, retry: RetryPolicy = SOON, is_async: bool = True
) -> Any:
    """A task that raises one after the other, and returns how often it was called in the end."""
    left, calls = [*errors], []

    def work() -> int:
        calls.append(1)
        if left:
            raise left.pop(0)
        return len(calls)

    async def work_async() -> int:
        return work()

    return db.task(name="work", retry=retry)(work_async) if is_async else db.task(name="work", retry=retry)(work)


async def ended(db: PostgresDb, task: Any) -> tuple[Run[int], Any]:
    """The run, and its result or what its waiter gets instead."""
    async with Worker(db):
        run = await task.asubmit()
        try:
            return run, await run.aresult(timeout=10)
        except (RunFailed, RunCancelled) as error:
            return run, error


@pytest.mark.parametrize("is_async", [True, False])
async def test_retry_has_another_attempt_made_when_it_says(db: PostgresDb, conn: Conn, *, is_async: bool) -> None:
    patient = RetryPolicy(base_delay=60, max_attempts=3)
    errors = [Retry("not yet", after=0.01), Retry(after=0)]
    run, result = await ended(db, raising(db, errors, retry=patient, is_async=is_async))
    assert result == 3
    assert row_of(conn, run.run_id)["attempt"] == 3
    delays = conn.execute("select retry_delay, message, traceback from pgrun.attempts order by fence").fetchall()
    assert [tuple(row.values()) for row in delays] == [
        (pytest.approx(0.01), "not yet", None),
        (0.0, "it asked for another attempt", None),
    ]


async def test_a_retry_in_the_last_attempt_is_its_failure(db: PostgresDb, conn: Conn) -> None:
    run, error = await ended(db, raising(db, [Retry("not yet", after=0)] * 3))
    assert isinstance(error, RunFailed)
    assert (error.error_type, error.details["message"]) == ("Retry", "not yet")
    assert row_of(conn, run.run_id)["attempt"] == 3


async def test_snooze_uses_no_attempt_and_says_why_it_waits(db: PostgresDb, conn: Conn) -> None:
    run, result = await ended(db, raising(db, [Snooze(0.01, "the shop is closed")] * 5))
    assert result == 6
    row = row_of(conn, run.run_id)
    assert (row["attempt"], row["fence"], row["error"]) == (1, 6, None)
    assert one(conn, "select count(*) from pgrun.attempts") == 0


async def test_while_it_snoozes_nobody_holds_it(db: PostgresDb, conn: Conn) -> None:
    task = raising(db, [Snooze(3600, "the shop is closed")])
    async with Worker(db, concurrency=1):
        run = await task.asubmit()
        assert await (await task.asubmit()).aresult(timeout=10) == 2
    row = row_of(conn, run.run_id)
    assert (row["status"], row["attempt"], row["error"]["message"]) == ("pending", 0, "the shop is closed")
    assert 3500 < (row["due_at"] - row["started_at"]).total_seconds() < 3700


async def test_discard_is_the_end_whatever_attempts_are_left(db: PostgresDb, conn: Conn) -> None:
    run, error = await ended(db, raising(db, [Discard("no such customer")]))
    assert isinstance(error, RunFailed)
    assert (error.error_type, error.details["message"]) == ("Discard", "no such customer")
    assert row_of(conn, run.run_id)["attempt"] == 1


async def test_discard_may_cancel_the_run(db: PostgresDb, conn: Conn) -> None:
    run, error = await ended(db, raising(db, [Discard("sold out", cancel=True)]))
    assert isinstance(error, RunCancelled)
    assert error.run.error.message == "sold out"
    assert one(conn, "select count(*) from pgrun.failures") == 0
    assert row_of(conn, run.run_id)["status"] == "cancelled"


async def test_what_a_task_group_wraps_is_understood(db: PostgresDb) -> None:
    calls: list[int] = []

    async def decide() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise Snooze(0)
        if len(calls) == 2:
            raise GreaterThanAnException
        raise Discard("enough", cancel=True)

    @db.task(retry=SOON)
    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(decide)

    _, error = await ended(db, work)
    assert isinstance(error, RunCancelled)
    assert (len(calls), error.run.attempt) == (3, 2)


async def test_some_exceptions_are_never_retried_and_some_less_often(db: PostgresDb, conn: Conn) -> None:
    rules = RetryPolicy(
        max_attempts=9, base_delay=0, errors={LookupError: None, KeyError: RetryPolicy(max_attempts=3, base_delay=0)}
    )
    run, error = await ended(db, raising(db, [ValueError("may pass"), IndexError("never")], retry=rules))
    assert (error.error_type, row_of(conn, run.run_id)["attempt"]) == ("IndexError", 2)
    run, error = await ended(db, raising(db, [KeyError("less often")] * 9, retry=rules))
    assert (error.error_type, row_of(conn, run.run_id)["attempt"]) == ("KeyError", 3)


async def test_a_rule_may_have_retried_what_would_be_final(db: PostgresDb) -> None:
    rules = RetryPolicy(max_attempts=2, base_delay=0, errors={UsageError: RetryPolicy(base_delay=0)})
    _, result = await ended(db, raising(db, [UsageError("perhaps")], retry=rules))
    assert result == 2


async def test_who_asks_for_another_attempt_gets_it_whatever_the_rules_say(db: PostgresDb) -> None:
    strict = RetryPolicy(max_attempts=2, base_delay=0, errors={Exception: None})
    assert (await ended(db, raising(db, [Retry()], retry=strict)))[1] == 2


async def test_why_a_task_asked_for_another_attempt_is_in_its_history(db: PostgresDb, conn: Conn) -> None:
    @db.task(retry=SOON)
    async def work(ctx: TaskContext) -> None:
        try:
            await ctx.step("look", lambda: {"six": 6}["seven"])
        except KeyError as error:
            if ctx.attempt == 1:
                raise Retry("not there yet", after=0) from error

    async with Worker(db):
        await (await work.asubmit()).aresult(timeout=10)
    assert "KeyError: 'seven'" in one(conn, "select traceback from pgrun.attempts")


@pytest.mark.parametrize("rules", [{"ValueError": None}, {int: None}, {ValueError: 3}])
def test_a_rule_that_cannot_be_is_refused(rules: Any) -> None:
    with pytest.raises(UsageError, match=r"RetryPolicy\.errors: "):
        RetryPolicy(errors=rules)


@pytest.mark.parametrize("seconds", [-1, float("nan"), "60", True])
def test_a_time_that_cannot_be_is_refused(seconds: Any) -> None:
    for make in (lambda: Snooze(seconds), lambda: Retry(after=seconds)):
        with pytest.raises(UsageError, match="seconds from now"):
            make()
