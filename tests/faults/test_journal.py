"""What was paid for survives its worker: killed, cut off, or unsure whether it was written."""

from pathlib import Path

import anyio
import pytest
from support.database import Conn
from support.models import ScriptedModel, calling
from support.netfault import Proxy
from support.processes import Processes
from support.settings import FAST
from support.tables import one
from support.tool_agent import errands
from support.until import until

from pgrun import Agent, PostgresDb, Worker
from pgrun.models.base import ModelRequest, ModelResponse
from pgrun.testing import ModelServer, hang, reply, tool_call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WORKER = ("--import", "support.tool_agent")


async def test_a_killed_workers_finished_calls_are_not_made_again(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    models.script(
        reply(calls=[tool_call("note", {"line": "one"}), tool_call("note", {"line": "two"})]),
        reply(calls=[tool_call("note", {"line": "three"})]),
        hang(),
        "All is noted.",
    )
    first = processes.worker(*WORKER, lease=2)
    await first.ready()
    run = await errands(db).arun("Note it.", background=True, metadata={"file": str(notes)})
    await models.await_for_calls(3)
    first.kill()
    await processes.worker(*WORKER, lease=2).ready()
    assert await run.aresult(timeout=20) == "All is noted."
    assert sorted(notes.read_text().split()) == ["one", "three", "two"]
    assert [call.outcome for call in models.calls] == ["answered", "answered", "aborted", "answered"]
    assert models.paid == 3
    assert models.calls[3].body["input"] == models.calls[2].body["input"]
    assert one(conn, "select attempt from pgrun.jobs") == 2


class Weather:
    """An agent that is told to ask for Rome's weather so many times, and may have to wait before each answer of its model."""

    def __init__(self, db: PostgresDb, times: int) -> None:
        self.called: list[str] = []
        self.asked, self.may_answer = anyio.Event(), anyio.Event()
        self.may_answer.set()
        weather = self

        class Model(ScriptedModel):
            async def call(self, request: ModelRequest) -> ModelResponse:
                weather.asked.set()
                await weather.may_answer.wait()
                return await super().call(request)

        rome = calling(("look", '{"city": "Rome"}'))
        self.agent = Agent(name="Weather", model=Model(*[rome] * times, "Sun."), tools=[self.look], db=db)

    def look(self, city: str) -> str:
        """Tells the weather."""
        self.called.append(city)
        return "sun"


async def test_a_step_whose_answer_is_lost_is_recorded_once(proxy: Proxy, conn: Conn) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db):
        weather = Weather(db, 2)
        proxy.lose_answer("record_step", "record_step")
        run = await weather.agent.arun("Rome?", background=True)
        assert await run.aresult(timeout=20) == "Sun."
    assert proxy.lost == ["record_step", "record_step"]
    assert weather.called == ["Rome", "Rome"]
    assert one(conn, "select count(*) from pgrun.steps") == 4


async def test_while_the_database_is_away_nothing_follows_from_what_is_not_recorded(proxy: Proxy, conn: Conn) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db):
        weather = Weather(db, 1)
        weather.may_answer = anyio.Event()
        run = await weather.agent.arun("Rome?", background=True)
        await weather.asked.wait()
        proxy.black_hole()
        weather.may_answer.set()
        await anyio.sleep(0.3)
        assert weather.called == []
        proxy.heal()
        await until(lambda: weather.called == ["Rome"])
        assert await run.aresult(timeout=20) == "Sun."
    assert one(conn, "select count(*) from pgrun.steps") == 2
