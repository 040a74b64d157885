"""Streams survive what their workers, readers, networks and databases go through: no gap, no repeat, nobody left waiting."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Literal

import anyio
import anyio.to_thread
import pytest
from support.counting_agent import CountingModel, counted, counting
from support.database import Conn
from support.netfault import Proxy
from support.processes import Process, Processes
from support.reading import LISTENERS, Reading, all_of, kinds_of, text_of
from support.rows import row_of
from support.settings import FAST
from support.speaking import SpeakingModel
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import Agent, PostgresDb, RunEvent, Worker
from pgrun.db import listener
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.testing import ModelServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WORKER = ("--import", "support.counting_agent")


@pytest.fixture
async def far(proxy: Proxy) -> AsyncIterator[PostgresDb]:
    """A database behind the network that fails."""
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as database:
        yield database


def printed(*tails: Process) -> list[RunEvent]:
    """What `pgrun tail --json` has printed, in one process after the other."""
    lines = [line for tail in tails for line in tail.output.splitlines()]
    return [RunEvent.model_validate(json.loads(line)) for line in lines if line.endswith("}")]


def said_in(reading: Reading, attempt: int) -> int:
    """How many pieces of text of an attempt a reader has seen."""
    return sum(event.attempt == attempt and event.text != "" for event in reading.events)


async def test_fifty_readers_see_the_same_while_workers_and_one_of_them_are_killed(
    dsn: str, db: PostgresDb, conn: Conn, processes: Processes
) -> None:
    conn.execute("select pgrun.pause_queue('default')")  # until everybody is there
    run = await counting(db).arun("400 0.01", background=True, stream=True)
    tails = [processes.pgrun("tail", run.run_id, "--json") for _ in range(3)]
    started = [processes.worker(*WORKER) for _ in range(3)]
    workers = {await each.ready(): each for each in started}
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(PostgresDb(dsn, worker="external", settings=FAST)) for _ in range(2)]
        agents = [counting(each) for each in (db, *others)]
        group = await stack.enter_async_context(anyio.create_task_group())
        readings = [Reading(agents[number % 3].aevents(run.run_id)) for number in range(47)]
        for reading in readings:
            group.start_soon(reading.read)
        await until(lambda: one(conn, LISTENERS) == 4, within=20, shown="three tails and this process listen")

        conn.execute("select pgrun.resume_queue('default')")
        await until(lambda: len(readings[0].events) > 30 and len(printed(tails[0])) > 10, within=20)
        tails[0].kill()
        seen = printed(tails[0])[-1].seq
        tails.append(processes.pgrun("tail", run.run_id, "--json", "--after", str(seen)))
        for attempt in (1, 2):
            await until(lambda: said_in(readings[0], attempt) > 20, within=20, shown=readings[0].events[-5:])  # noqa: B023
            owner = next(event for event in readings[0].events if (event.kind, event.attempt) == ("started", attempt))
            workers[owner.data["worker_id"]].kill()
        await until(lambda: all(reading.is_over for reading in readings), within=30)

    events = readings[0].events
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]
    assert [event.attempt for event in events if event.kind == "started"] == [1, 2, 3]
    assert events[-1].content == counted(400) == text_of(event for event in events if event.attempt == 3)
    assert all(reading.events == events for reading in readings)
    assert [await tail.ends() for tail in tails[1:]] == [0, 0, 0]
    for read in (printed(tails[1]), printed(tails[2]), printed(tails[0], tails[3])):
        assert read == events


async def test_swallowed_notifications_cost_latency_only(listens_far: PostgresDb, proxy: Proxy, heard: Heard) -> None:
    going_on, ending = anyio.Event(), anyio.Event()
    model = SpeakingModel("It ", going_on, "rains ", ending, "today.")
    agent = Agent(name="Speaking", model=model, db=listens_far)
    async with Worker(listens_far), anyio.create_task_group() as group:
        await until_heard(heard, "listening")
        proxy.swallows = True
        run = await agent.arun("?", background=True)
        await until(lambda: model.asked)
        reading = Reading(run.aevents())  # the worker hears of it by its next heartbeat
        group.start_soon(reading.read)
        await until(lambda: reading.text == "It ", shown=reading.events)
        going_on.set()
        await until(lambda: reading.text == "It rains ", shown=reading.events)
        ending.set()
        await until(lambda: reading.is_over, shown=reading.events)
    assert reading.events[-1].content == "It rains today."
    assert [event.seq for event in reading.events] == [*range(1, len(reading.events) + 1)]


async def test_a_reader_whose_listener_is_cut_off_polls_and_listens_again(
    listens_far: PostgresDb, proxy: Proxy, heard: Heard
) -> None:
    pauses = [anyio.Event() for _ in range(3)]
    agent = Agent(name="Speaking", model=SpeakingModel("a", pauses[0], "b", pauses[1], "c", pauses[2]), db=listens_far)
    async with Worker(listens_far), anyio.create_task_group() as group:
        run = await agent.arun("?", background=True, stream=True)
        reading = Reading(run.aevents())
        group.start_soon(reading.read)
        await until(lambda: reading.text == "a")
        proxy.refuse()
        await until_heard(heard, "not_listening")
        pauses[0].set()
        await until(lambda: reading.text == "ab")
        heard.clear()
        proxy.accept()
        await until_heard(heard, "listening")
        pauses[1].set()
        await until(lambda: reading.text == "abc")
        pauses[2].set()
    assert reading.is_over


async def test_where_listen_does_not_work_readers_poll(dsn: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_PROOF_DEADLINE", 0.2)
    # Another database of the same server: LISTEN works there, and nothing of ours ever arrives.
    async with PostgresDb(dsn, worker="external", listen_url=server, settings=FAST) as db, Worker(db):
        agent = Agent(name="Counting", model=CountingModel(), db=db)
        run = await agent.arun("100 0.01", background=True)
        events = await all_of(run.aevents())
    assert text_of(events) == counted(100)
    assert kinds_of(events) == ["started", "text", "model_call_completed", "completed"]
    assert len(events) > 5


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_the_database_leaves_no_gap(
    mode: Literal["fast", "immediate"], own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer
) -> None:
    with Processes(own_dsn, models.environ) as processes:
        worker = processes.worker(*WORKER)
        await worker.ready()
        async with PostgresDb(own_dsn, worker="external", settings=FAST) as db, anyio.create_task_group() as group:
            run = await counting(db).arun("300 0.01", background=True, stream=True)
            readings = [Reading(run.aevents()) for _ in range(5)]
            for reading in readings:
                group.start_soon(reading.read)
            await until(lambda: len(readings[0].events) > 20)
            await anyio.to_thread.run_sync(own_server.restart, mode)
            await until(lambda: all(reading.is_over for reading in readings), within=30)
            after = await all_of(run.aevents())
    events = readings[0].events
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]
    assert all(reading.events == events for reading in readings)
    assert after == events
    assert text_of(events) == events[-1].content == counted(300)
    assert [event.kind for event in events if event.kind != "text"] == ["started", "model_call_completed", "completed"]


async def test_a_worker_that_was_cut_off_tells_nothing_after_another_has_taken_over(
    db: PostgresDb, far: PostgresDb, proxy: Proxy, heard: Heard
) -> None:
    agent = counting(far)
    async with Worker(far) as cut_off:
        run = await agent.arun("1000 0.01", background=True, stream=True)
        reading = Reading(counting(db).aevents(run.run_id))
        async with anyio.create_task_group() as group:
            group.start_soon(reading.read)
            await until(lambda: len(reading.events) > 10)
            proxy.black_hole()
            async with Worker(db):
                await until_heard(heard, "rescued", run_id=run.run_id, within=15)
                await until(lambda: reading.events[-1].attempt == 2 and reading.events[-1].text)
                old_id = cut_off.worker_id
                proxy.heal()
                await until_heard(heard, "lease_lost", worker_id=old_id)
                before = len(reading.events)
                await until(lambda: len(reading.events) > before + 10)
                group.cancel_scope.cancel()
        await agent.acancel_run(run.run_id)
    events = await all_of(counting(db).aevents(run.run_id))
    assert events[: len(reading.events)] == reading.events
    attempts = [event.attempt for event in events if event.text]
    assert attempts == sorted(attempts), "what the first said comes before what the second says"
    assert text_of(event for event in events if event.attempt == 2).startswith(counted(20))


async def test_statements_whose_answers_are_lost_tell_nothing_twice(far: PostgresDb, proxy: Proxy, conn: Conn) -> None:
    going_on = anyio.Event()
    agent = Agent(name="Speaking", model=SpeakingModel("It ", going_on, "rains."), db=far)
    names = ("watch_run", "find_last_events", "write_events", "read_events", "read_events", "get_answer_so_far")
    async with Worker(far), anyio.create_task_group() as group:
        run = await agent.arun("?", background=True, stream=True)
        proxy.lose_answer(*names)
        reading = Reading(run.aevents())
        group.start_soon(reading.read)
        await until(lambda: reading.text == "It ", shown=reading.events)
        proxy.lose_answer("write_events")
        going_on.set()
        await until(lambda: reading.is_over, shown=reading.events)
        assert [event async for event in run.aevents(after=2)] == reading.events[2:]
    assert sorted(proxy.lost) == sorted((*names, "write_events"))
    assert [event.text for event in reading.events] == ["", "It ", "rains.", "", ""]
    assert one(conn, "select count(*) from pgrun.events") == 5


async def test_connections_that_are_cut_again_and_again_leave_no_gap(far: PostgresDb, proxy: Proxy) -> None:
    agent = counting(far)
    async with Worker(far), anyio.create_task_group() as group:
        run = await agent.arun("200 0.01", background=True, stream=True)
        reading = Reading(run.aevents())
        group.start_soon(reading.read)
        for cut in range(1, 6):
            await until(lambda: len(reading.events) > 5 * cut or reading.is_over)  # noqa: B023  over within the round
            proxy.cut()
        await until(lambda: reading.is_over, within=20)
    assert text_of(reading.events) == counted(200)
    assert [event.seq for event in reading.events] == [*range(1, len(reading.events) + 1)]


async def test_what_is_said_while_the_database_is_away_is_told_when_it_is_back(
    far: PostgresDb, proxy: Proxy, db: PostgresDb
) -> None:
    pauses: list[Any] = [anyio.Event() for _ in range(2)]
    agent = Agent(name="Speaking", model=SpeakingModel("a", pauses[0], *"bcdefgh", pauses[1], "i"), db=far)
    async with Worker(far), anyio.create_task_group() as group:
        run = await agent.arun("?", background=True, stream=True)
        reading = Reading(Agent(name="Reads", model=SpeakingModel(), db=db).aevents(run.run_id))
        group.start_soon(reading.read)
        await until(lambda: reading.text == "a")
        proxy.refuse()
        pauses[0].set()
        pauses[1].set()
        proxy.accept()
        await until(lambda: reading.is_over, within=20)
    assert reading.text == "abcdefghi"
    assert [event.attempt for event in reading.events if event.kind == "started"] == [1]


async def test_a_worker_that_leaves_while_the_database_is_away_does_not_stay_for_its_events(
    proxy: Proxy, conn: Conn
) -> None:
    going_on = anyio.Event()
    hasty = replace(FAST, reconnect_timeout=1.0, statement_timeout=3.0)
    async with PostgresDb(proxy.conninfo, worker="external", settings=hasty) as db:
        agent = Agent(name="Speaking", model=SpeakingModel("It ", going_on, "rains."), db=db)
        with anyio.fail_after(40):
            async with Worker(db, grace=1):
                run = await agent.arun("?", background=True, stream=True)
                await until(lambda: one(conn, "select count(*) from pgrun.events") == 2)
                proxy.refuse()
                going_on.set()
        proxy.accept()
    assert [row["kind"] for row in conn.execute("select kind from pgrun.events order by seq")] == ["started", "text"]
    assert row_of(conn, run.run_id)["status"] == "running", "others will rescue it"
