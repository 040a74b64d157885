"""Streams from the model to any number of readers, through the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.models import calling
from support.rows import row_of
from support.settings import FAST
from support.speaking import ANSWERED, LISTENERS, Item, Reading, SpeakingModel, all_of, kinds_of, text_of
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import (
    Agent,
    ModelRejected,
    ModelUnavailable,
    PostgresDb,
    RetryPolicy,
    Run,
    RunCancelled,
    RunEvent,
    RunFailed,
    RunNotFound,
    RunOutput,
    UsageError,
    Worker,
)
from pgrun._ids import new_run_id
from pgrun.db import following
from pgrun.db._runtime import Runtime
from pgrun.worker import attempt_stream, streams

SOON = RetryPolicy(base_delay=0.01, max_attempts=3, jitter=0.0)


class City(BaseModel):
    name: str


def agent_of(db: PostgresDb, *script: Item, **options: Any) -> Agent[Any]:
    return Agent(name="Speaking", model=SpeakingModel(*script), db=db, retry=SOON, **options)


def model_of(agent: Agent[Any]) -> SpeakingModel:
    model = agent.definition.model
    assert isinstance(model, SpeakingModel)
    return model


@asynccontextmanager
async def readers() -> AsyncIterator[Any]:
    """Starts readers, which have come to an end when the block ends."""
    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:

            def start(events: AsyncIterator[RunEvent]) -> Reading:
                reading = Reading(events)
                group.start_soon(reading.read)
                return reading

            yield start


async def said_by(reading: Reading, text: str) -> None:
    await until(lambda: reading.text == text, shown=reading.events)


async def test_whoever_begins_before_during_and_after_a_run_sees_the_same(db: PostgresDb) -> None:
    first, last = anyio.Event(), anyio.Event()
    agent = agent_of(db, "It ", first, "rains ", last, "today.")
    run = await agent.arun("?", background=True)
    async with readers() as start:
        before = start(run.aevents())
        async with Worker(db):
            await said_by(before, "It ")
            during = start(agent.aevents(run.run_id))
            await said_by(during, "It ")
            first.set()
            await said_by(during, "It rains ")
            last.set()
            await run.aresult(timeout=10)
    after = await all_of(run.aevents())
    assert before.events == during.events == after
    assert kinds_of(after) == ["started", "text", "model_call_completed", "completed"]
    assert [event.seq for event in after] == [*range(1, len(after) + 1)]
    assert text_of(after) == after[-1].content == "It rains today."
    assert (after[-1].run_id, after[-1].attempt) == (run.run_id, 1)


async def test_who_comes_late_to_a_run_that_nobody_read_misses_nothing_of_the_attempt(db: PostgresDb) -> None:
    going_on = anyio.Event()
    look = calling(("look", '{"city": "Rome"}'))
    agent = agent_of(db, "I look.", look, "It ", "rains ", going_on, "today.", tools=[_look])
    run = await agent.arun("?", background=True)
    async with Worker(db), readers() as start:
        await until(lambda: len(model_of(agent).asked) == 2)
        assert not model_of(agent).asked[1].watch.wants_text
        late = start(run.aevents())
        await said_by(late, "I look.It rains ")
        assert model_of(agent).asked[1].watch.wants_text
        going_on.set()
    assert kinds_of(late.events) == [
        *("started", "text", "model_call_completed", "tool_call_started", "tool_call_completed"),
        *("text", "model_call_completed", "completed"),
    ]
    assert late.events == await all_of(run.aevents())


async def test_a_run_that_nobody_reads_writes_nothing(db: PostgresDb, conn: Conn) -> None:
    agent = agent_of(db, "It ", "rains.")
    async with Worker(db):
        await (await agent.arun("?", background=True)).aresult(timeout=10)
    assert one(conn, "select count(*) from pgrun.events") == 0


async def test_a_run_submitted_with_stream_tells_its_answer_piece_by_piece_from_the_start(db: PostgresDb) -> None:
    agent = agent_of(db, "It ", "rains.")
    async with Worker(db):
        run = await agent.arun("?", background=True, stream=True)
        assert await run.aresult(timeout=10) == "It rains."
    assert model_of(agent).asked[0].watch.wants_text
    assert kinds_of(await all_of(run.aevents())) == ["started", "text", "model_call_completed", "completed"]


async def test_who_goes_on_behind_an_event_gets_the_rest_and_the_whole_answer(db: PostgresDb) -> None:
    pauses = [anyio.Event() for _ in range(3)]
    agent = agent_of(db, '{"na', pauses[0], 'me": "Ro', pauses[1], 'me"', pauses[2], "}", output_schema=City)
    run = await agent.arun("?", background=True, stream=True)
    async with Worker(db), readers() as start:
        first = start(run.aevents())
        for pause, text in zip(pauses, ('{"na', '{"name": "Ro', '{"name": "Rome"'), strict=True):
            await said_by(first, text)
            pause.set()
    assert [event.content for event in first.events] == [
        *(None, {}, {"name": "Ro"}, {"name": "Rome"}, {"name": "Rome"}, {"name": "Rome"}, City(name="Rome"))
    ]
    for seq in range(len(first.events) + 1):
        rest = [event async for event in run.aevents(after=seq)]
        assert rest == first.events[seq:]
        assert [event.content for event in rest] == [event.content for event in first.events[seq:]]
    by_id = agent_of(db).aevents(run.run_id)  # an agent that knows nothing of the type
    assert [event.content async for event in by_id][-2:] == [{"name": "Rome"}, {"name": "Rome"}]


async def test_behind_the_end_there_is_nothing(db: PostgresDb) -> None:
    agent = agent_of(db, "Hi")
    async with Worker(db):
        run = await agent.arun("?", background=True)
        await run.aresult(timeout=10)
    last = (await all_of(run.aevents()))[-1].seq
    assert [event async for event in run.aevents(after=last)] == []
    assert [event async for event in run.aevents(after=last + 100)] == []


async def test_a_failed_attempt_makes_void_what_it_said(db: PostgresDb) -> None:
    agent = agent_of(db, "It ", ModelUnavailable("busy"), "Sun.")
    async with Worker(db):
        run = await agent.arun("?", background=True, stream=True)
        await run.aresult(timeout=10)
    events = await all_of(run.aevents())
    assert kinds_of(events)[:5] == ["started", "text", "retried", "started", "text"]
    assert events[2].data["error"]["type"] == "ModelUnavailable"
    assert [event.content for event in events[:5]] == [None, "It ", None, None, "Sun."]


async def test_after_a_retry_by_a_person_readers_of_the_first_life_go_on(db: PostgresDb) -> None:
    agent = agent_of(db, "It ", ModelRejected("no"), "Sun.")
    async with Worker(db):
        run = await agent.arun("?", background=True)
        first = await all_of(run.aevents())
        assert first[-1].kind == "error"
        await (await db.connected()).verbs.retry_ended(run.run_id)
        second = await all_of(run.aevents(after=first[-1].seq))
    assert kinds_of(second) == ["retried", "started", "text", "model_call_completed", "completed"]
    assert await all_of(run.aevents()) == first + second


async def test_a_reader_ends_at_a_pause_and_reads_on_behind_it(db: PostgresDb, conn: Conn) -> None:
    agent = agent_of(db, "Sun.")
    run = await agent.arun("?", background=True, stream=True)
    conn.execute("update pgrun.jobs set status = 'paused'")
    first = await all_of(run.aevents())
    assert kinds_of(first) == ["paused"]
    async with Worker(db), readers() as start:
        second = start(run.aevents(after=1))
        conn.execute("update pgrun.jobs set status = 'pending'")
    assert kinds_of(second.events)[:2] == ["resumed", "started"]
    assert second.events[-1].kind == "completed"


async def test_in_the_foreground(db: PostgresDb, conn: Conn) -> None:
    going_on = anyio.Event()
    agent = agent_of(db, "It ", going_on, "rains.")
    events: list[RunEvent] = []
    async with Worker(db):
        async for event in agent.arun("?", stream=True):
            events.append(event)
            if event.text:
                going_on.set()
    assert kinds_of(events) == ["started", "text", "model_call_completed", "completed"]
    assert row_of(conn, events[0].run_id)["status"] == "completed"


async def test_in_the_foreground_a_failure_is_the_last_event_and_then_raised(db: PostgresDb) -> None:
    reading = Reading(agent_of(db, "It ", ModelRejected("no")).arun("?", stream=True))
    async with Worker(db):
        with pytest.raises(RunFailed, match="no"):
            await reading.read()
    assert kinds_of(reading.events) == ["started", "text", "error"]


async def test_in_the_foreground_so_is_a_cancellation(db: PostgresDb) -> None:
    agent = agent_of(db, "It ", anyio.Event())
    reading = Reading(agent.arun("?", stream=True))
    async with Worker(db), anyio.create_task_group() as group:
        group.start_soon(_read_until_cancelled, reading)
        await said_by(reading, "It ")
        await agent.acancel_run(reading.events[0].run_id)
    assert kinds_of(reading.events) == ["started", "text", "cancelled"]


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_in_the_foreground_who_stops_reading_cancels_the_run(
    db: PostgresDb, conn: Conn, heard: Heard, how: str
) -> None:
    agent = agent_of(db, "It ", anyio.Event())
    async with Worker(db):
        with anyio.CancelScope() as scope:
            events = agent.arun("?", stream=True)
            async for event in events:
                if event.text and how == "left":
                    break
                if event.text:
                    scope.cancel()
            await events.aclose()
        await until_heard(heard, "cancelled")
    assert one(conn, "select status from pgrun.jobs") == "cancelled"
    assert model_of(agent).is_stopped


async def test_without_an_event_loop(db: PostgresDb, dsn: str) -> None:
    agent = agent_of(PostgresDb(dsn, worker="external", settings=FAST), "It ", "rains.", ANSWERED, "Sun.")

    def read() -> None:
        events = [*agent.run("?", stream=True)]
        assert text_of(events) == events[-1].content == "It rains."
        run = agent.run("?", background=True, stream=True)
        assert text_of(run.events()) == text_of(agent.events(run.run_id)) == "Sun."
        assert next(run.events(after=2)).seq == 3
        assert agent.db is not None
        agent.db.close()

    async with Worker(db):
        await anyio.to_thread.run_sync(read)


async def test_a_task_tells_its_attempts_and_its_end(db: PostgresDb) -> None:
    @db.task
    async def double(number: int) -> int:
        return 2 * number

    run: Run[int] = await double.asubmit(21)
    async with Worker(db), readers() as start:
        reading = start(run.aevents())
    assert [(event.kind, event.content) for event in reading.events] == [("started", None), ("completed", 42)]


async def test_a_run_that_does_not_exist_cannot_be_read(db: PostgresDb) -> None:
    agent = agent_of(db)
    for events in (agent.aevents(new_run_id()),):
        with pytest.raises(RunNotFound):
            await anext(events)
    with pytest.raises(UsageError, match="is not a UUID"):
        await anext(agent.aevents("1"))
    with pytest.raises(UsageError, match="after=-1"):
        await anext(agent.aevents(new_run_id(), after=-1))
    elsewhere: RunOutput[Any] = RunOutput(run_id=new_run_id())
    with pytest.raises(UsageError, match="was not returned by an agent"):
        elsewhere.aevents()


async def test_a_run_that_is_deleted_while_it_is_read_is_not_found(db: PostgresDb, conn: Conn) -> None:
    run = await agent_of(db).arun("?", background=True)
    reading = Reading(run.aevents())
    async with anyio.create_task_group() as group:
        group.start_soon(_delete_when_watched, conn)
        with anyio.fail_after(10), pytest.raises(RunNotFound):
            await reading.read()


async def test_many_readers_share_one_query(db: PostgresDb, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = _count(monkeypatch, "read_events")
    pieces = [piece for number in range(20) for piece in (f"{number} ", anyio.Event())]
    agent = agent_of(db, *pieces)
    run = await agent.arun("?", background=True, stream=True)
    async with Worker(db), readers() as start:
        readings = [start(run.aevents()) for _ in range(50)]
        text = ""
        for piece, pause in zip(pieces[::2], pieces[1::2], strict=True):
            assert isinstance(piece, str)
            text += piece
            for reading in readings:
                await said_by(reading, text)
            assert isinstance(pause, anyio.Event)
            pause.set()
    assert all(reading.events == readings[0].events for reading in readings)
    assert len(looks) < 4 * len(pieces)


async def test_a_slow_reader_holds_up_nobody_and_is_given_a_page_at_a_time(
    db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PAGE", 3)
    monkeypatch.setattr(streams, "_GATHER", 0.0)
    agent = agent_of(db, *[f"{number} " for number in range(100)])
    run = await agent.arun("?", background=True, stream=True)
    slow = run.aevents()
    async with Worker(db):
        first = await anext(slow)
        await run.aresult(timeout=10)
    rest = [event async for event in slow]
    assert [first, *rest] == await all_of(run.aevents())
    assert rest[-1].kind == "completed"


async def test_pieces_go_together_but_none_waits_for_long(db: PostgresDb, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = _count(monkeypatch, "write_events")
    agent = agent_of(db, *[f"{number} " for number in range(1000)])
    async with Worker(db):
        run = await agent.arun("?", background=True, stream=True)
        answer = await run.aresult(timeout=10)
    events = await all_of(run.aevents())
    assert text_of(events) == answer
    assert len(writes) <= 3
    assert len(events) <= 6


async def test_runs_of_a_worker_share_statements(db: PostgresDb, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = _count(monkeypatch, "write_events")
    going_on = anyio.Event()
    speaking = [Agent(name=f"S{number}", model=SpeakingModel("It ", going_on, "rains."), db=db) for number in range(20)]
    async with Worker(db), readers() as start:
        runs = [await each.arun("?", background=True, stream=True) for each in speaking]
        readings = [start(run.aevents()) for run in runs]
        for reading in readings:
            await said_by(reading, "It ")
        writes.clear()
        going_on.set()
    assert {reading.text for reading in readings} == {"It rains."}
    assert len(writes) <= 4


async def test_what_an_unread_attempt_remembers_is_bounded(db: PostgresDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_stream, "_REMEMBERED_BYTES", 1000)
    going_on = anyio.Event()
    agent = agent_of(db, "a" * 600, "b" * 600, "c", going_on, "d")
    run = await agent.arun("?", background=True)
    async with Worker(db), readers() as start:
        await until(lambda: model_of(agent).asked)
        late = start(run.aevents())
        await until(lambda: late.text == "c")
        going_on.set()
    assert late.text == "cd"
    assert late.events[-1].content == "a" * 600 + "b" * 600 + "cd"


async def test_an_event_that_the_database_refuses_costs_the_stream_and_not_the_run(
    db: PostgresDb, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_of(db, "It ", "rains.")

    class Careless(SpeakingModel):
        async def call(self, request: Any) -> Any:
            request.watch._watch.tell("text", text="\x00")  # past everything that would make it storable
            return await super().call(request)

    careless = Agent(name="Careless", model=Careless("Sun."), db=db)
    async with Worker(db):
        runs = [await each.arun("?", background=True, stream=True) for each in (careless, agent)]
        results = [await run.aresult(timeout=10) for run in runs]
    assert results == ["Sun.", "It rains."]
    assert text_of(await all_of(runs[1].aevents())) == "It rains."
    assert kinds_of(await all_of(runs[0].aevents())) == ["started", "text", "completed"]
    assert "events of it cannot be written" in caplog.text


async def test_a_run_whose_row_is_locked_holds_up_no_other(db: PostgresDb, conn: Conn) -> None:
    pauses = [anyio.Event(), anyio.Event()]
    agents = [Agent(name=f"S{n}", model=SpeakingModel("It ", pauses[n], "rains."), db=db) for n in range(2)]
    async with Worker(db), readers() as start:
        runs = [await each.arun("?", background=True, stream=True) for each in agents]
        readings = [start(run.aevents()) for run in runs]
        for reading in readings:
            await said_by(reading, "It ")
        with conn.transaction():
            conn.execute("select from pgrun.jobs where run_id = %s for update", [runs[0].run_id])
            pauses[0].set()
            pauses[1].set()
            await until(lambda: readings[1].is_over)
            assert readings[0].text == "It "
    assert readings[0].text == "It rains."


async def test_a_worker_that_leaves_writes_what_was_told_before_it_gives_runs_back(db: PostgresDb, conn: Conn) -> None:
    agent = agent_of(db, "It ", anyio.Event(), "Sun.")
    async with Worker(db, grace=0), readers() as start:
        run = await agent.arun("?", background=True, stream=True)
        reading = start(_until_text(run.aevents(), "It "))
        await until(lambda: reading.is_over)
    assert [row["kind"] for row in conn.execute("select kind from pgrun.events order by seq")] == [
        *("started", "text", "released")
    ]
    agent_of(db, "Sun.")
    async with Worker(db):
        assert await run.aresult(timeout=10) == "Sun."
    events = await all_of(run.aevents())
    assert kinds_of(events)[:5] == ["started", "text", "released", "started", "text"]


async def test_nobody_listens_where_nobody_reads(db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LINGER", 0.0)
    agent = agent_of(db, "Hi", ANSWERED, "Ho", ANSWERED)

    def listeners() -> int:
        """A connection that has said nothing since it began to listen."""
        return int(one(conn, LISTENERS))

    async with Worker(db):
        await (await agent.arun("?", background=True)).aresult(timeout=10)
        assert listeners() == 0
        run = await agent.arun("?", background=True)
        events = run.aevents()
        assert (await anext(events)).seq == 1
        await until(lambda: listeners() == 1, shown="listeners")
        await events.aclose()
        await until(lambda: listeners() == 0, shown="listeners")


def _look(city: str) -> str:
    """Looks."""
    return f"sun in {city}"


async def _read_until_cancelled(reading: Reading) -> None:
    with pytest.raises(RunCancelled):
        await reading.read()


async def _delete_when_watched(conn: Conn) -> None:
    await until(lambda: one(conn, "select streams from pgrun.jobs"))
    conn.execute("delete from pgrun.jobs")


async def _until_text(events: AsyncIterator[RunEvent], text: str) -> AsyncIterator[RunEvent]:
    said = ""
    async for event in events:
        yield event
        said += event.text
        if said == text:
            return


def _count(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Every execution of a statement from here on."""
    found: list[str] = []
    fetch = Runtime.fetch_tuples

    async def counted(self: Runtime, executed: str, params: Any) -> Any:
        if executed == name:
            found.append(executed)
        return await fetch(self, executed, params)

    monkeypatch.setattr(Runtime, "fetch_tuples", counted)
    return found
