"""Agents as tools: the question is a run of its own, and whoever asked holds no slot until it has ended."""

from typing import Any

import anyio
import psycopg
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.hands import a_run, failed, hire
from support.models import USAGE, ScriptedModel, calling
from support.rows import Row, row_of, until_all
from support.until import until

from pgrun import Agent, ModelRejected, PostgresDb, RunCancelled, RunFailed, ToolFailed, Worker

ASK = calling(("Researcher", '{"request": "Who built Rome?"}'))
ASK_TWO = calling(("Researcher", '{"request": "Rome?"}'), ("Researcher", '{"request": "Oslo?"}'))


class Fact(BaseModel):
    name: str


def researcher(db: PostgresDb | None, *answers: Any, **options: Any) -> Agent[Any]:
    return Agent(name="Researcher", model=ScriptedModel(*answers), description="Knows things.", db=db, **options)


def writer(db: PostgresDb | None, *answers: Any, tools: Any) -> Agent[Any]:
    return Agent(name="Writer", model=ScriptedModel(*answers), tools=tools, db=db)


def asked(agent: Agent[Any]) -> list[Any]:
    model = agent.definition.model
    assert isinstance(model, ScriptedModel)
    return model.asked


def children_of(conn: Conn, run_id: str) -> list[Row]:
    return conn.execute("select * from pgrun.jobs where parent_run_id = %s order by created_at", [run_id]).fetchall()


async def until_parked(conn: Conn, run_id: str) -> Row:
    return await until(lambda: row if (row := row_of(conn, run_id))["held"] == "children" else {}, shown="parked")


async def test_an_agent_asks_another_whose_run_is_its_child(db: PostgresDb, conn: Conn) -> None:
    child = researcher(db, "Romulus.")
    parent = writer(db, ASK, "Romulus did.", tools=[child])
    async with Worker(db):
        run = await parent.arun("Who built Rome?", background=True, stream=True)
        ended = await run.awaited(timeout=10)
        told = [event.kind async for event in run.aevents()]
    assert ended.content == "Romulus did."
    fate = ("started", "parked", "resumed", "released", "retried", "completed")
    assert [kind for kind in told if kind in fate] == ["started", "parked", "resumed", "started", "completed"]
    (made,) = children_of(conn, run.run_id)
    assert (made["name"], made["input"], made["output"], made["attempt"]) == (
        "Researcher",
        "Who built Rome?",
        "Romulus.",
        1,
    )
    assert made["session_id"] != ended.session_id
    assert [(each.name, each.result) for each in ended.tools] == [("Researcher", "Romulus.")]
    assert (ended.metrics.total_tokens, ended.attempt) == (2 * USAGE.total_tokens, 1)
    assert ended.metrics.children is not None
    assert ended.metrics.children.total_tokens == USAGE.total_tokens
    specs = asked(parent)[0].tools
    assert [(spec.name, spec.description) for spec in specs] == [("Researcher", "Knows things.")]


async def test_one_slot_is_enough_for_a_whole_tree(db: PostgresDb, conn: Conn) -> None:
    leaf = Agent(name="Leaf", model=ScriptedModel("Deep.", "Deeper."), db=db)
    middle = researcher(
        db, *[calling(("Leaf", '{"request": "Deep?"}'))] * 2, "One.", "Two.", tools=[leaf.as_tool(name="Leaf")]
    )
    top = writer(db, ASK_TWO, "Both.", tools=[middle])
    async with Worker(db, concurrency=1):
        run = await top.arun("?", background=True)
        ended = await run.awaited(timeout=10)
    assert ended.content == "Both."
    assert sorted(each.result or "" for each in ended.tools) == ["One.", "Two."]
    assert ended.metrics.children is not None
    assert ended.metrics.children.total_tokens == 6 * USAGE.total_tokens
    row = conn.execute("select sum((metrics ->> 'total_tokens')::int) as all from pgrun.jobs").fetchone()
    assert row == {"all": 8 * USAGE.total_tokens}, "each run has what is its own"


async def test_a_typed_answer_is_shown_as_json_and_a_failed_child_with_its_reason(db: PostgresDb) -> None:
    child = researcher(db, '{"name": "Romulus"}', ModelRejected("no such model"), output_schema=Fact)
    parent = writer(db, ASK, calling(("Researcher", '{"request": "And Oslo?"}')), "Done.", tools=[child])
    async with Worker(db):
        ended = await (await parent.arun("?", background=True)).awaited(timeout=10)
    assert ended.content == "Done."
    first, second = ended.tools
    assert (first.result, second.result) == ('{"name":"Romulus"}', None)
    assert second.error == "Researcher gave no answer: ModelRejected: no such model"


async def test_cancelling_a_run_cancels_what_it_has_started(db: PostgresDb, conn: Conn) -> None:
    leaf = Agent(name="Leaf", model=ScriptedModel(), queue="nobody", db=db)
    middle = researcher(db, calling(("Leaf", '{"request": "Deep?"}')), tools=[leaf])
    top = writer(db, ASK, tools=[middle])
    async with Worker(db):
        run = await top.arun("?", background=True)
        await until_parked(conn, run.run_id)
        (child,) = await until(lambda: children_of(conn, run.run_id))
        await until_parked(conn, str(child["run_id"]))
        assert await top.acancel_run(run.run_id)
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
    statuses = conn.execute("select name, status, held from pgrun.jobs order by name").fetchall()
    assert [(row["name"], row["status"], row["held"]) for row in statuses] == [
        (name, "cancelled", None) for name in ("Leaf", "Researcher", "Writer")
    ]


async def test_a_run_that_fails_cancels_what_it_has_started(db: PostgresDb, conn: Conn) -> None:
    def pay() -> None:
        raise ToolFailed("the card is blocked")

    child = researcher(db, queue="nobody")
    parent = writer(db, calling(("Researcher", '{"request": "?"}')), calling(("pay", "{}")), tools=[child, pay])
    async with Worker(db):
        run = await parent.arun("?", background=True)
        await until_parked(conn, run.run_id)
        (made,) = children_of(conn, run.run_id)
        conn.execute("select pgrun.cancel(%s)", [made["run_id"]])  # the model is told, and pays
        with pytest.raises(RunFailed, match="the card is blocked"):
            await run.aresult(timeout=10)
    assert children_of(conn, run.run_id)[0]["status"] == "cancelled"


async def test_a_retry_by_a_person_brings_back_what_had_failed_with_it(db: PostgresDb, conn: Conn) -> None:
    child = researcher(db, ModelRejected("not today"), "Romulus.")
    parent = writer(db, ASK, ModelRejected("nor I"), ASK, "Romulus did.", tools=[child])
    async with Worker(db):
        run = await parent.arun("?", background=True)
        with pytest.raises(RunFailed, match="nor I"):
            await run.aresult(timeout=10)
        conn.execute("select pgrun.retry(%s)", [run.run_id])
        (row,) = await until_all(conn, "completed", [run.run_id])
    assert row["output"] == "Romulus did."
    assert len(children_of(conn, run.run_id)) == 1


async def test_without_a_database_the_other_agent_answers_here() -> None:
    child = researcher(None, "Romulus.", ModelRejected("no more"))
    parent = writer(None, ASK, calling(("Researcher", '{"request": "Again?"}')), "Done.", tools=[child])
    ended = await parent.arun("?")
    assert ended.content == "Done."
    assert ended.tools[0].result == "Romulus."
    assert "no more" in (ended.tools[1].error or "")
    assert ended.metrics.children is not None
    assert ended.metrics.children.total_tokens == USAGE.total_tokens


async def test_a_child_that_ends_while_its_parent_is_being_parked_is_not_missed(
    db: PostgresDb, dsn: str, conn: Conn
) -> None:
    """Its transaction has looked at the parent already, and is not committed when the parent looks at it."""
    hand = await hire(db)
    parent, child = await _family(db)
    (goes_on,) = [run for run in await hand.claim(2) if run.run_id == parent]
    with psycopg.connect(dsn) as other:
        other.execute(
            "update pgrun.jobs set status = 'completed', finished_at = now() where run_id = %s", [child]
        )  # and its trigger has been there
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_park, hand.verbs, goes_on)
            await until(lambda: _waits_for_lock(conn))
            other.commit()
    row = row_of(conn, parent)
    assert (row["status"], row["held"], row["attempt"]) == ("pending", None, 0)


async def test_parents_go_on_at_the_last_end_however_their_children_end(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    parent = await _submit(db, kind="agent", session_id="s")
    children = [await _submit(db, parent_run_id=parent, priority=number) for number in (1, 2, 3)]
    mine, first, second, third = await hand.claim(4)
    assert mine.run_id == parent
    assert await hand.verbs.park(mine, metrics={"total_tokens": 3})
    await hand.complete(first)
    await hand.verbs.finish([failed(second)])
    assert row_of(conn, parent)["held"] == "children"
    assert third.run_id == children[2]
    conn.execute("delete from pgrun.jobs where run_id = %s", [third.run_id])
    row = row_of(conn, parent)
    assert (row["held"], row["attempt"], row["metrics"]) == (None, 0, {"total_tokens": 3})
    assert (await hand.claim_one()).fence == 2


async def test_only_who_holds_a_run_parks_it_and_a_cancel_comes_first(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    parent = await _submit(db, kind="agent", session_id="s")
    mine = await hand.claim_one()
    assert not await hand.verbs.park(mine._replace(fence=7), metrics=None)
    conn.execute("select pgrun.cancel(%s)", [parent])
    assert await hand.verbs.park(mine, metrics=None)
    assert row_of(conn, parent)["status"] == "cancelled"
    assert not await hand.verbs.park(mine, metrics=None)


async def test_a_parked_run_keeps_its_place_in_its_session(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    parent = await _submit(db, kind="agent", session_id="s")
    conn.execute("insert into pgrun.queues (queue) values ('nobody')")
    child = await _submit(db, parent_run_id=parent, queue="nobody")
    later = await _submit(db, kind="agent", session_id="s")
    assert await hand.verbs.park(await hand.claim_one(), metrics=None)
    await hand.verbs.open_sessions()
    assert row_of(conn, later)["held"] == "session"
    conn.execute("select pgrun.cancel(%s)", [child])
    assert await hand.complete(await hand.claim_one()) == {parent}
    assert row_of(conn, later)["held"] is None


async def test_what_a_lock_made_somebody_miss_is_found_later(db: PostgresDb, dsn: str, conn: Conn) -> None:
    hand = await hire(db)
    parent, child = await _family(db)
    runs = {run.run_id: run for run in await hand.claim(2)}
    assert await hand.verbs.park(runs[parent], metrics=None)
    with psycopg.connect(dsn) as other:
        other.execute("select from pgrun.jobs where run_id = %s for update", [parent])
        assert await hand.complete(runs[child]) == {child}, "whoever ends a child does not wait for long"
    assert row_of(conn, parent)["held"] == "children"
    await hand.verbs.open_sessions()
    assert row_of(conn, parent)["held"] is None


async def _family(db: PostgresDb) -> tuple[str, str]:
    parent = await _submit(db, kind="agent", session_id="s")
    return parent, await _submit(db, parent_run_id=parent)


async def _submit(db: PostgresDb, **columns: Any) -> str:
    run = a_run(**columns, **({"definition": {}} if columns.get("kind") == "agent" else {}))
    await db.submit(run)
    return run.run_id


async def _park(verbs: Any, claimed: Any) -> None:
    assert await verbs.park(claimed, metrics=None)


def _waits_for_lock(conn: Conn) -> bool:
    row = conn.execute("select count(*) as waiting from pg_stat_activity where wait_event_type = 'Lock'").fetchone()
    return row is not None and row["waiting"] > 0
