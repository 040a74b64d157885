"""What `pgrun.testing` offers to tests of programs: the real queue, executed when the test says so."""

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
import pytest
from support.database import Conn
from support.tables import one

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy, RunFailed, Task
from pgrun.testing import ModelServer, advance, assert_submitted, drain, inline, sync

SLOW = RetryPolicy(max_attempts=3, base_delay=200, max_delay=3600)


@pytest.fixture
def said() -> list[Any]:
    """What the tasks did."""
    return []


@pytest.fixture
def say(db: PostgresDb, said: list[Any]) -> Task[[str], str]:
    @db.task
    async def say(word: str, at: datetime | None = None) -> str:
        said.append(word)
        return word.upper()

    return say


@pytest.fixture
def fail(db: PostgresDb, said: list[Any]) -> Task[[], None]:
    @db.task(retry=SLOW)
    async def fail() -> None:
        said.append("failed")
        raise ValueError("no")

    return fail


async def test_draining_executes_what_is_due_and_what_that_submits_and_returns_what_became_of_it(
    db: PostgresDb, said: list[Any], say: Task[[str], str]
) -> None:
    @db.task
    async def both() -> None:
        said.append("first")
        await say.options(priority=5, session_id="s").asubmit("second")
        await say.options(session_id="s").asubmit("third")

    assert await drain(db) == []
    run = await both.asubmit()
    later = await say.options(delay=60).asubmit("later")
    outcomes = await drain(db)
    assert said == ["first", "second", "third"]
    assert [outcome.content for outcome in outcomes if outcome.run_id != run.run_id] == ["SECOND", "THIRD"]
    assert len(outcomes) == 3
    await advance(db, 61)
    (outcome,) = await drain(db)
    assert (outcome.run_id, outcome.content) == (later.run_id, "LATER")


async def test_retries_come_when_their_time_has_passed_or_at_once_if_that_is_wanted(
    db: PostgresDb, said: list[Any], fail: Task[[], None]
) -> None:
    await fail.asubmit()
    assert await drain(db) == []
    assert await drain(db) == []
    assert said == ["failed"]
    await advance(db, timedelta(hours=1))
    assert await drain(db) == []
    assert said == ["failed"] * 2
    (outcome,) = await drain(db, retries=True)
    assert (outcome.status, outcome.attempt, said) == ("error", 3, ["failed"] * 3)


async def test_schedules_come_round_as_often_as_time_is_let_pass(
    db: PostgresDb, said: list[Any], say: Task[[str], str]
) -> None:
    await db.aschedule(say, {"word": "daily"}, cron="0 9 * * *", timezone="Europe/Berlin")
    await db.aschedule(say, {"word": "hourly"}, every=3600, missed="all", name="hourly")
    await db.aschedule(say, {"word": "once"}, at=datetime.now(UTC) + timedelta(hours=30), name="once")
    await drain(db)
    assert said == []
    await advance(db, timedelta(days=1))
    await drain(db)
    assert sorted(said) == ["daily", *["hourly"] * 24]
    said.clear()
    await advance(db, timedelta(days=1))
    await drain(db)
    assert sorted(said) == ["daily", *["hourly"] * 24, "once"]


async def test_inline_a_submit_returns_when_its_run_has_ended(
    db: PostgresDb, said: list[Any], say: Task[[str], str], fail: Task[[], None]
) -> None:
    with inline(db):
        run = await say.asubmit("now")
        assert said == ["now"]
        assert await run.aresult(timeout=0) == "NOW"
        await say.options(session_id="s").asubmit("in a session")
        await say.asubmit_many([{"word": "a"}, {"word": "b"}])
        assert said[1:] == ["in a session", "a", "b"]
        with pytest.raises(RunFailed, match="ValueError: no"):
            await (await fail.asubmit()).aresult(timeout=0)
        later = await say.options(delay=60).asubmit("later")
    await say.asubmit("not now")
    assert said[4:] == ["failed"] * 3
    await advance(db, 61)
    assert {outcome.run_id for outcome in await drain(db)} > {later.run_id}


async def test_inline_a_task_that_submits_another_finds_it_done(db: PostgresDb, say: Task[[str], str]) -> None:
    @db.task
    async def twice(word: str) -> str:
        return 2 * await (await say.asubmit(word)).aresult(timeout=5)

    with inline(db):
        assert await (await twice.asubmit("ha")).aresult(timeout=0) == "HAHA"


async def test_agents_are_executed_the_same_way(db: PostgresDb, models: ModelServer) -> None:
    models.always("blue")
    agent = Agent(name="Sky", model=OpenAIResponses("m", base_url=models.base_url, api_key="test"), db=db)
    run = await agent.arun("How is it?", background=True)
    (outcome,) = await drain(db)
    assert (outcome.run_id, outcome.content) == (run.run_id, "blue")
    with inline(db):
        assert (await agent.arun("And now?")).content == "blue"
    assert (await assert_submitted(db, agent, "And now?")).status == "completed"
    await assert_submitted(db, agent)
    with pytest.raises(AssertionError, match=r"(?s)no run Sky\('Why\?'\) was submitted, but\n  'And now\?'\n  'How is"):
        await assert_submitted(db, agent, "Why?")


async def test_what_was_submitted_is_found_by_some_of_its_arguments(db: PostgresDb, say: Task[[str], str]) -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    run = await say.asubmit("hello", when)  # type: ignore[call-arg]
    for arguments in ({}, {"word": "hello"}, {"at": when}, {"word": "hello", "at": when}):
        assert (await assert_submitted(db, say, **arguments)).run_id == run.run_id
    with pytest.raises(AssertionError, match=r"no run say\(word='bye'\) was submitted, but\n  \{'at': "):
        await assert_submitted(db, say, word="bye")
    with pytest.raises(AssertionError, match=r"no run other\(\) was submitted, but nothing"):
        await assert_submitted(db, "other")


async def test_a_paused_queue_and_a_blocked_run_do_not_keep_it_for_ever(
    db: PostgresDb, conn: Conn, say: Task[[str], str]
) -> None:
    conn.execute("select pgrun.pause_queue('default')")
    await say.asubmit("hello")
    assert await drain(db) == []
    conn.execute("select pgrun.resume_queue('default')")

    @db.task
    async def hang() -> None:
        await anyio.sleep_forever()

    await hang.asubmit()
    with pytest.raises(TimeoutError):
        await drain(db, timeout=0.3)
    assert one(conn, "select status || attempt from pgrun.jobs where name = 'hang'") == "pending0"


def test_without_an_event_loop_the_names_are_the_same(dsn: str) -> None:
    with PostgresDb(dsn) as db:

        @db.task
        def double(number: int) -> int:
            return 2 * number

        with sync.inline(db):
            assert double.submit(4).result(timeout=0) == 8
        db.worker = "external"
        double.options(delay=9).submit(5)
        sync.advance(db, 10)
        (outcome,) = sync.drain(db)
        assert outcome.content == 10
        assert sync.assert_submitted(db, double, number=5).run_id == outcome.run_id
