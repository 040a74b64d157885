"""What streams cost: statements are shared, memory is bounded, and nobody is held up by a slow reader, a lock or a refusal."""

from typing import Any

import anyio
import anyio.to_thread
import pytest
from support.database import Conn
from support.reading import LISTENERS, all_of, kinds_of, readers, said_by, text_of
from support.speaking import ANSWERED, SpeakingModel, agent_of, model_of
from support.tables import one
from support.until import until

from pgrun import Agent, PostgresDb, Worker
from pgrun.db import following
from pgrun.db._runtime import Runtime
from pgrun.worker import attempt_stream, streams


async def test_a_run_that_nobody_reads_writes_nothing(db: PostgresDb, conn: Conn) -> None:
    agent = agent_of(db, "It ", "rains.")
    async with Worker(db):
        await (await agent.arun("?", background=True)).aresult(timeout=10)
    assert one(conn, "select count(*) from pgrun.events") == 0


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
