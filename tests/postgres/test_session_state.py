"""The state of a session: tools change it piece by piece, with their own record, and no run loses what another has changed."""

import random
from itertools import pairwise
from typing import Any

import anyio
import pytest
from psycopg.types.json import Jsonb
from support.database import Conn
from support.hands import Hand, hire, submit
from support.models import ScriptedModel, calling
from support.rows import row_of
from support.tables import one

from pgrun import (
    Agent,
    ModelUnavailable,
    PostgresDb,
    RetryPolicy,
    RunContext,
    RunFailed,
    ToolFailed,
    UsageError,
    Worker,
)
from pgrun.errors import AttemptError
from pgrun.models.base import ModelRequest, ModelResponse
from pgrun.run.state import changed, view_of

ADD = calling(("add", '{"item": "milk"}'))
STEP: dict[str, Any] = {"number": 1, "kind": "tool_call", "name": "t", "data": {}, "duration": 0.0, "metrics": None}


def add(item: str, run: RunContext) -> str:
    """Puts an item on the list, as programs do that come from elsewhere."""
    run.session_state.setdefault("list", []).append(item)
    run.add_to_state("calls")
    return f"{len(run.session_state['list'])} items"


def shopping(db: PostgresDb, *answers: str | ModelResponse | AttemptError, **options: Any) -> Agent[str]:
    return Agent(name="Shopping", model=ScriptedModel(*answers), tools=[add], db=db, **options)


def state_of(conn: Conn, session_id: str = "s") -> Any:
    return one(conn, "select state from pgrun.sessions where session_id = %s", session_id)


async def ask(agent: Agent[str], **options: Any) -> str:
    answer: str = await (await agent.arun("?", session_id="s", background=True, **options)).aresult(timeout=10)
    return answer


async def test_what_a_tool_changes_is_there_for_the_next_tool_and_the_next_run(db: PostgresDb, conn: Conn) -> None:
    agent = shopping(db, ADD, ADD, "done", ADD, "done", session_state={"list": ["bread"]})
    async with Worker(db):
        for _ in range(2):
            await ask(agent)
    assert await agent.aget_session_state("s") == {"list": ["bread", *["milk"] * 3], "calls": 3}
    results = conn.execute("select data ->> 'result' as r from pgrun.steps where kind = 'tool_call' order by step, r")
    assert sorted(row["r"] for row in results) == ["2 items", "3 items", "4 items"]


async def test_a_run_brings_values_that_go_over_those_of_the_session_and_these_over_the_agents(db: PostgresDb) -> None:
    agent = shopping(db, "done", "done", session_state={"a": 1, "b": {"x": 1}})
    await agent.aset_session_state("s", {"a": 0, "c": 0})
    async with Worker(db):
        await ask(agent, session_state={"b": {"y": 2}, "c": 3})
        assert await agent.aget_session_state("s") == {"a": 0, "b": {"x": 1, "y": 2}, "c": 3}
        await agent.aupdate_session_state("s", {"b": {"x": 9}})
        await ask(agent)
    assert await agent.aget_session_state("s") == {"a": 0, "b": {"x": 9, "y": 2}, "c": 3}


async def test_the_model_is_shown_the_state_if_it_is_to(db: PostgresDb) -> None:
    agent = shopping(db, "done", session_state={"list": ["ham"]}, add_session_state_to_context=True, instructions="Hm.")
    async with Worker(db):
        await ask(agent)
    model = agent.definition.model
    assert isinstance(model, ScriptedModel)
    assert model.asked[0].messages[0].content == 'Hm.\n<session_state>\n{"list": ["ham"]}\n</session_state>'


async def test_parallel_runs_lose_nothing(db: PostgresDb, conn: Conn) -> None:
    """Fifty-one at once, each with a counter, a list and a key of its own."""

    class Model(ScriptedModel):
        async def call(self, request: ModelRequest) -> ModelResponse:
            text = request.messages[-1].content
            return (
                ModelResponse("done") if request.messages[-1].role == "tool" else calling(("mark", f'{{"n": {text}}}'))
            )

    def mark(n: int, run: RunContext) -> None:
        """Marks."""
        run.add_to_state("count")
        run.session_state.setdefault("seen", {})[str(n)] = True
        run.session_state["list"].append(n)

    agent = Agent(name="Marks", model=Model(), tools=[mark], multitask="parallel", db=db, session_state={"list": []})
    async with Worker(db, concurrency=51):
        runs = [await agent.arun(n, session_id="s", background=True) for n in range(51)]
        await db.await_runs([run.run_id for run in runs], timeout=15)
    state = await agent.aget_session_state("s")
    assert state["count"] == 51
    assert sorted(state["list"]) == [*range(51)]
    assert state["seen"].keys() == {str(n) for n in range(51)}


async def test_a_call_that_fails_changes_nothing(db: PostgresDb) -> None:
    def spoil(run: RunContext) -> None:
        """Spoils."""
        run.session_state["list"] = []
        raise ValueError("no")

    def clutter(run: RunContext) -> None:
        """Clutters."""
        run.session_state["list"] = object()

    def give_up(run: RunContext) -> None:
        """Gives up."""
        run.session_state["list"] = None
        raise ToolFailed("enough")

    model = ScriptedModel(calling(("spoil", "{}"), ("clutter", "{}")), calling(("give_up", "{}")))
    agent = Agent(name="Spoils", model=model, tools=[spoil, clutter, give_up], db=db)
    await agent.aset_session_state("s", {"list": ["ham"]})
    async with Worker(db):
        with pytest.raises(RunFailed, match="enough") as caught:
            await ask(agent)
    assert await agent.aget_session_state("s") == {"list": ["ham"]}
    errors = [tool["error"] for tool in row_tools(caught.value)]
    assert errors[1].startswith("UsageError: session_state.list: is of type object")


def row_tools(error: RunFailed) -> list[dict[str, Any]]:
    return [tool.model_dump() for tool in error.run.tools]


async def test_an_attempt_that_takes_over_changes_nothing_again(db: PostgresDb) -> None:
    retry = RetryPolicy(base_delay=0)
    agent = shopping(db, ADD, ModelUnavailable("gone"), "done", session_state={"calls": 10}, retry=retry)
    async with Worker(db):
        await ask(agent, session_state={"from": "run"})
    assert await agent.aget_session_state("s") == {"list": ["milk"], "calls": 11, "from": "run"}


async def running(db: PostgresDb) -> tuple[Hand, Any]:
    await submit(db, kind="agent", definition={}, session_id="s")
    hand = await hire(db)
    return hand, await hand.claim_one()


def setting(**values: Any) -> list[dict[str, Any]]:
    return [{"path": [key], "op": "set", "value": value} for key, value in values.items()]


async def test_a_step_and_its_changes_are_written_once_and_by_who_holds_the_run(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await running(db)
    adding: Any = [{"path": ["n"], "op": "add", "value": 1}]
    for _ in range(2):
        kept = await hand.verbs.record_step(claimed, **STEP, changes=adding)
        assert kept is not None
        assert kept.state == {"n": 1}
    stale = claimed._replace(fence=claimed.fence - 1)
    assert await hand.verbs.record_step(stale, **{**STEP, "number": 2}, changes=adding) is None
    assert state_of(conn) == {"n": 1}
    assert one(conn, "select count(*) from pgrun.steps") == 1


async def test_a_rollback_takes_back_what_the_run_has_changed(db: PostgresDb, conn: Conn) -> None:
    verbs = (await db.connected()).verbs
    await verbs.change_session_state("s", setting(a=1, b=1, c={"x": 1}))
    hand, claimed = await running(db)
    changes = [*setting(a=2, new=2), {"path": ["b"], "op": "remove"}, {"path": ["c", "x"], "op": "set", "value": 2}]
    await hand.verbs.record_step(claimed, **STEP, changes=changes)
    await hand.verbs.record_step(claimed, **{**STEP, "number": 2}, changes=setting(a=3))
    assert state_of(conn) == {"a": 3, "new": 2, "c": {"x": 2}}
    await submit(db, session_id="s", multitask="rollback")
    assert state_of(conn) == {"a": 1, "b": 1, "c": {"x": 1}}
    kept = await hand.verbs.record_step(claimed, **{**STEP, "number": 3}, changes=setting(a=4))
    assert kept is not None  # it may still write its journal, until it is stopped
    assert state_of(conn)["a"] == 1


async def test_a_rollback_leaves_what_others_have_changed_since(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await running(db)
    await hand.verbs.record_step(claimed, **STEP, changes=setting(a=1, b=1))
    await hand.verbs.change_session_state("s", setting(a=7, d=7))
    await submit(db, session_id="s", multitask="rollback")
    assert state_of(conn) == {"a": 7, "d": 7}


async def test_an_interruption_takes_nothing_back(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await running(db)
    await hand.verbs.record_step(claimed, **STEP, changes=setting(a=1))
    await submit(db, session_id="s", multitask="interrupt")
    assert state_of(conn) == {"a": 1}
    assert row_of(conn, claimed.run_id)["superseded"] == "interrupt"


def some_state(chance: random.Random, depth: int = 2) -> dict[str, Any]:
    def value() -> Any:
        plain = [chance.randint(-3, 3), chance.choice("xyz"), None, [chance.randint(0, 3)]]
        return some_state(chance, depth - 1) if depth and chance.random() < 0.4 else chance.choice(plain)

    return {key: value() for key in "abc" if chance.random() < 0.7}


def test_the_database_makes_changes_as_python_does(conn: Conn) -> None:
    chance = random.Random(7)
    for _ in range(300):
        before, after, other = (some_state(chance) for _ in range(3))
        view = view_of(before)
        view.add("a", chance.randint(1, 3)) if isinstance(before.get("a"), int) else None
        view.state.update(after)
        view.state.pop("c", None)
        changes = view.changes()
        for state in (before, other, {}):
            if any(change["op"] == "add" and not isinstance(state.get("a", 0), int) for change in changes):
                continue
            made = one(conn, "select pgrun._change_state(%s, %s)", Jsonb(state), Jsonb(changes))
            assert made == changed(state, changes), (state, changes)


def test_undoing_gives_back_what_was_there(conn: Conn) -> None:
    chance = random.Random(8)
    for _ in range(200):
        states = [some_state(chance) for _ in range(4)]
        undo = None
        for before, after in pairwise(states):
            note = "select pgrun._note_undo(%s, %s, %s)"
            undo = one(conn, note, None if undo is None else Jsonb(undo), Jsonb(before), Jsonb(after))
        assert one(conn, "select pgrun._undo_state(%s, %s)", Jsonb(states[-1]), Jsonb(undo)) == states[0]


async def test_states_are_set_and_read_from_outside(db: PostgresDb) -> None:
    agent = shopping(db)
    assert await agent.aget_session_state("nobody") == {}
    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(agent.aupdate_session_state, "s", {f"key{n}": n})
    assert len(await agent.aget_session_state("s")) == 20
    assert await agent.aset_session_state("s", {"only": 1}) == {"only": 1}
    with pytest.raises(UsageError, match=r"session_state.a: contains NUL"):
        await agent.aset_session_state("s", {"a": "\x00"})
    with pytest.raises(UsageError, match="session_state: a dict"):
        await agent.aset_session_state("s", [])  # type: ignore[arg-type]


async def test_a_session_whose_state_was_set_first_is_in_the_view_of_who_begins_it(
    db: PostgresDb, dsn: str, conn: Conn
) -> None:
    await shopping(db).aset_session_state("s", {"a": 1})
    async with PostgresDb(dsn, worker="external", session_table="Chats") as chats:
        await submit(chats, session_id="s", session_table=chats.session_table)
        await submit(db, session_id="s", session_table="others")
    assert conn.execute('select session_id, runs from pgrun."Chats"').fetchall() == [{"session_id": "s", "runs": 2}]


async def test_without_a_database_the_state_lasts_as_long_as_the_run() -> None:
    model = ScriptedModel(ADD, ADD, "done")
    agent = Agent(name="Alone", model=model, tools=[add], session_state={"list": ["ham"]})
    run = await agent.arun("?", session_state={"list": ["egg"]})
    assert [tool.result for tool in run.tools] == ["2 items", "3 items"]


async def test_a_step_that_changes_it_ends_what_was_under_way_like_any_other(db: PostgresDb, conn: Conn) -> None:
    await submit(db, kind="agent", definition={}, session_id="s")
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await hand.verbs.note_call(claimed, 1, "resp_1")
    assert await hand.verbs.begin_step(claimed, number=1, name="t", times=1)
    assert await hand.verbs.record_step(claimed, **STEP, changes=[{"path": ["a"], "op": "set", "value": 1}])
    row = row_of(conn, claimed.run_id)
    assert (row["call"], row["begun"], state_of(conn)) == (None, {}, {"a": 1})
