"""Keys: of one task or agent, one run at a time holds a key; who submits it meanwhile gets that run."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, failed, hire
from support.rows import row_of
from support.tables import one, perform

from pgrun import Agent, OpenAIResponses, PostgresDb, Run, SessionBusy, Task, UsageError
from pgrun._ids import new_run_id


@pytest.fixture
def ship(db: PostgresDb) -> Task[[int], str]:
    @db.task
    async def ship(order: int) -> str:
        return f"{order} is shipped"

    return ship


@pytest.fixture
async def hand(db: PostgresDb) -> Hand:
    return await hire(db, names=["ship"])


def count(conn: Conn) -> int:
    return int(one(conn, "select count(*) from pgrun.jobs"))


def same(first: Run[Any], second: Run[Any]) -> bool:
    return first.run_id == second.run_id and second.duplicate


async def test_a_key_that_is_held_gives_the_run_that_holds_it(conn: Conn, ship: Task[[int], str], hand: Hand) -> None:
    first = await ship.options(key="order-7").asubmit(7)
    again = await ship.options(key="order-7").asubmit(8)
    assert not first.duplicate
    assert same(first, again)
    assert row_of(conn, first.run_id)["input"] == {"order": 7}
    await hand.complete(await hand.claim_one())
    assert await again.aresult(timeout=10) == "done"


async def test_until_it_has_ended_is_the_default(conn: Conn, ship: Task[[int], str], hand: Hand) -> None:
    keyed = ship.options(key="order-7")
    first = await keyed.asubmit(7)
    claimed = await hand.claim_one()
    assert same(first, await keyed.asubmit(7))
    await hand.verbs.retry(claimed, delay=0, error={}, metrics=None)
    assert same(first, await keyed.asubmit(7))
    await hand.complete(await hand.claim_one())
    assert not same(first, await keyed.asubmit(7))
    assert count(conn) == 2


async def test_with_scope_pending_one_waits_while_another_runs(conn: Conn, ship: Task[[int], str], hand: Hand) -> None:
    keyed = ship.options(key="order-7", key_scope="pending")
    first = await keyed.asubmit(7)
    assert same(first, await keyed.asubmit(7))
    claimed = await hand.claim_one()
    second = await keyed.asubmit(7)
    assert not second.duplicate
    # The first comes back; it has left its key when it was started, so there is nothing to quarrel about.
    assert await hand.verbs.retry(claimed, delay=0, error={}, metrics=None) == "pending"
    assert same(second, await keyed.asubmit(7))


async def test_with_scope_ever_repeats_of_a_request_are_harmless(
    db: PostgresDb, conn: Conn, ship: Task[[int], str], hand: Hand
) -> None:
    keyed = ship.options(key="request-1", key_scope="ever")
    first = await keyed.asubmit(7)
    await hand.complete(await hand.claim_one())
    again = await keyed.asubmit(7)
    assert same(first, again)
    assert await again.aresult(timeout=10) == "done"
    await db.aprune(0)
    assert not (await keyed.asubmit(7)).duplicate


async def test_for_a_period_a_key_is_held_whether_its_run_has_ended_or_not(
    conn: Conn, ship: Task[[int], str], hand: Hand
) -> None:
    keyed = ship.options(key="digest", key_period=3600)
    first = await keyed.asubmit(7)
    await hand.complete(await hand.claim_one())
    assert same(first, await keyed.asubmit(7))
    conn.execute("update pgrun.jobs set key_until = now()")
    second = await keyed.asubmit(8)
    assert not second.duplicate
    assert same(second, await keyed.asubmit(9))
    row = row_of(conn, second.run_id)
    assert row["key_until"] - row["created_at"] == timedelta(hours=1)


async def test_keys_are_those_of_a_name(db: PostgresDb, ship: Task[[int], str]) -> None:
    @db.task
    async def bill(order: int) -> int:
        return order

    await ship.options(key="7").asubmit(7)
    assert not (await bill.options(key="7").asubmit(7)).duplicate
    assert not (await ship.options(key="8").asubmit(7)).duplicate


async def test_a_duplicate_that_waits_is_replaced(conn: Conn, ship: Task[[int], str], ear: Ear) -> None:
    first = await ship.options(key="7", delay=60, priority=5, metadata={"a": 1}, tags=["x"]).asubmit(7)
    ear.heard()
    newer = ship.options(key="7", on_duplicate="replace", priority=-1, max_attempts=2, tags=["y"])
    assert same(first, await newer.asubmit(8))
    row = row_of(conn, first.run_id)
    assert (row["input"], row["priority"], row["metadata"]) == ({"order": 8}, -1, {})
    assert (row["max_attempts"], row["tags"]) == (2, ["y"])
    assert timedelta(0) < row["due_at"] - row["created_at"] < timedelta(seconds=30)
    assert ear.heard() == [("wake", "default")]


async def test_what_runs_is_not_replaced_and_the_newer_input_is_not_lost(
    conn: Conn, ship: Task[[int], str], hand: Hand
) -> None:
    newer = ship.options(key="7", on_duplicate="replace")  # with scope pending, unless it is said otherwise
    first = await newer.asubmit(7)
    await hand.claim_one()
    assert not same(first, second := await newer.asubmit(8))
    assert same(second, await newer.asubmit(9))
    assert [row["input"]["order"] for row in conn.execute("select input from pgrun.jobs order by run_id")] == [7, 9]
    whole = ship.options(key="8", on_duplicate="replace", key_scope="unfinished")
    third = await whole.asubmit(1)
    conn.execute("update pgrun.jobs set status = 'running', started_at = now() where run_id = %s", [third.run_id])
    assert same(third, await whole.asubmit(2))
    assert row_of(conn, third.run_id)["input"] == {"order": 1}


async def test_a_debounced_start_moves_on_up_to_a_bound(conn: Conn, ship: Task[[int], str]) -> None:
    keyed = ship.options(key="7", on_duplicate="debounce", delay=60, max_delay=100)
    first = await keyed.asubmit(7)
    conn.execute("update pgrun.jobs set created_at = now() - interval '30 s', due_at = now() + interval '30 s'")
    assert same(first, await keyed.asubmit(8))
    row = row_of(conn, first.run_id)
    assert row["input"] == {"order": 8}
    assert timedelta(seconds=90) <= row["due_at"] - row["created_at"] < timedelta(seconds=99)
    conn.execute("update pgrun.jobs set created_at = now() - interval '70 s'")
    await keyed.asubmit(9)
    row = row_of(conn, first.run_id)
    assert (row["input"], row["due_at"] - row["created_at"]) == ({"order": 9}, timedelta(seconds=100))


async def test_in_one_call_each_key_has_one_run(conn: Conn, ship: Task[[int], str], ear: Ear) -> None:
    held = await ship.options(key="c").asubmit(0)
    ear.heard()
    runs = await ship.asubmit_many([{"order": n} for n in range(6)], keys=["a", "b", "a", "c", "d", "a"])
    assert [run.duplicate for run in runs] == [False, False, True, True, False, True]
    assert runs[0].run_id == runs[2].run_id == runs[5].run_id
    assert runs[3].run_id == held.run_id
    rows = conn.execute("select key, (input ->> 'order')::int as n from pgrun.jobs order by key").fetchall()
    assert [(row["key"], row["n"]) for row in rows] == [("a", 0), ("b", 1), ("c", 0), ("d", 4)]
    assert ear.heard() == [("wake", "default")]


async def test_in_one_call_that_replaces_the_last_of_a_key_counts(conn: Conn, ship: Task[[int], str]) -> None:
    held = await ship.options(key="c").asubmit(0)
    newer = ship.options(on_duplicate="replace")
    runs = await newer.asubmit_many([{"order": n} for n in range(4)], keys=["a", "c", "a", "c"])
    assert [run.duplicate for run in runs] == [False, True, True, True]
    assert runs[1].run_id == held.run_id
    rows = conn.execute("select key, (input ->> 'order')::int as n from pgrun.jobs order by key").fetchall()
    assert [(row["key"], row["n"]) for row in rows] == [("a", 2), ("c", 3)]


async def test_thousands_of_keys_go_in_one_call(conn: Conn, ship: Task[[int], str]) -> None:
    some = [{"order": n} for n in range(3000)]
    first = await ship.asubmit_many(some[:2000], keys=map(str, range(2000)))
    again = await ship.asubmit_many(some, keys=map(str, range(3000)))
    assert [run.run_id for run in again[:2000]] == [run.run_id for run in first]
    assert [run.duplicate for run in again] == [True] * 2000 + [False] * 1000
    assert count(conn) == 3000


async def test_a_duplicate_uses_up_no_number_of_its_session_and_interrupts_nobody(
    conn: Conn, ship: Task[[int], str]
) -> None:
    await ship.options(session_id="s", key="a").asubmit(1)
    open_one = await ship.options(session_id="s").asubmit(2)
    again = await ship.options(session_id="s", key="a", multitask="interrupt").asubmit(3)
    refused = await ship.options(session_id="s", key="a", multitask="reject").asubmit(3)
    assert again.duplicate
    assert refused.duplicate
    assert row_of(conn, open_one.run_id)["status"] == "pending"
    assert one(conn, "select last_seq from pgrun.sessions") == 2
    with pytest.raises(SessionBusy):
        await ship.options(session_id="s", key="b", multitask="reject").asubmit(3)
    many = await ship.options(session_id="s").asubmit_many([{"order": n} for n in range(3)], keys=["z", "a", "y"])
    assert [run.duplicate for run in many] == [False, True, False]
    rows = conn.execute("select key from pgrun.jobs where session_seq > 2 order by session_seq").fetchall()
    assert [row["key"] for row in rows] == ["z", "y"]


async def test_a_run_of_an_agent_has_a_key_too(db: PostgresDb, conn: Conn) -> None:
    agent = Agent(name="Poet", model=OpenAIResponses("m", api_key="k"), db=db)
    first = await agent.arun("Rome", background=True, key="7", metadata={"a": 1})
    again = await agent.arun("Oslo", background=True, key="7")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.run_id, again.input, again.metadata) == (first.run_id, "Rome", {"a": 1})
    assert again.session_id == first.session_id
    assert one(conn, "select count(*) from pgrun.sessions") == 1
    newer = await agent.arun("Lima", background=True, key="7", on_duplicate="replace")
    assert (newer.run_id, newer.input, newer.metadata) == (first.run_id, "Lima", {})
    mine = new_run_id()
    assert not (await agent.arun("Rome", background=True, run_id=mine)).duplicate
    assert (await agent.arun("Rome", background=True, run_id=mine)).duplicate


async def test_what_ended_is_not_retried_while_another_holds_its_key(
    db: PostgresDb, conn: Conn, ship: Task[[int], str], hand: Hand
) -> None:
    first = await ship.options(key="7").asubmit(7)
    await hand.verbs.finish([failed(await hand.claim_one())])
    second = await ship.options(key="7").asubmit(7)
    with pytest.raises(UsageError, match=rf'its key "7" is held by run {second.run_id}\. Wait'):
        await hand.verbs.retry_ended(first.run_id)
    assert row_of(conn, first.run_id)["status"] == "error"
    await hand.complete(await hand.claim_one())
    assert await hand.verbs.retry_ended(first.run_id) == "pending"
    assert (await ship.options(key="7").asubmit(7)).run_id == first.run_id


async def test_a_repeat_after_a_lost_answer_finds_its_own_run_also_when_that_has_ended(
    conn: Conn, ship: Task[[int], str], hand: Hand
) -> None:
    common = '{"kind": "task", "name": "ship", "max_attempts": 5, "on_duplicate": "replace", "key_scope": "pending"}'

    def submit(run_id: str, data: str) -> tuple[str, bool]:
        (row,) = perform(conn, "submit_runs", common=common, run_ids=[run_id], keys=["7"], inputs=f"[{data}]")
        return row["submitted"], row["is_new"]

    first, second = new_run_id(), new_run_id()
    assert submit(first, "1") == (first, True)
    assert submit(second, "2") == (first, False)
    await hand.complete(await hand.claim_one())
    assert submit(second, "2") == (first, False)  # else what it asked for would be done twice
    assert submit(first, "1") == (first, False)
    assert count(conn) == 1


def test_plain_sql_holds_keys_too(conn: Conn) -> None:
    insert = "insert into pgrun.jobs (name, key) values ('ship', '7')"
    conn.execute(insert)
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(insert.encode())
    held = one(conn, "select run_id from pgrun.jobs")
    assert one(conn, "select pgrun.submit('ship', '1', key => '7')") == held
    conn.execute(
        "create table public.orders (id int); create function public.ship() returns trigger language plpgsql as $$ begin "
        "perform pgrun.submit('ship', to_jsonb(new), key => 'order-' || new.id, on_duplicate => 'replace'); return new; "
        "end $$; create trigger ship after insert on public.orders for each row execute function public.ship()"
    )
    conn.execute("insert into public.orders select n % 3 from generate_series(1, 9) n")
    assert count(conn) == 4


def test_what_cannot_be_is_refused_in_sql(conn: Conn) -> None:
    for arguments, says in (
        ("key_scope => 'ever'", "need a key"),
        ("on_duplicate => 'replace'", "need a key"),
        ("key => '7', key_scope => 'period'", 'key_scope "period" is none of pending, unfinished, ever'),
        ("key => '7', on_duplicate => 'both'", 'on_duplicate "both" is none of keep, replace, debounce'),
        ("key => '7', key_scope => 'ever', key_period => '1 h'", "both say how long"),
        ("key => '7', max_delay => '1 h'", "max_delay is for on_duplicate => 'debounce'"),
        ("delay => '1 h', due_at => now()", "due_at and delay say the same"),
        ("expires => '1 h', expires_at => now()", "expires and expires_at say the same"),
        ("deadline => '1 h', deadline_at => now()", "deadline and deadline_at say the same"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select pgrun.submit('ship', '1', {arguments})".encode())
        assert caught.value.sqlstate == "PGR02"
        assert says in str(caught.value)


async def test_a_key_is_for_one_run_and_keys_are_for_many(ship: Task[[int], str], conn: Conn) -> None:
    with pytest.raises(UsageError, match=r"key= is for one run; give asubmit_many keys="):
        await ship.options(key="7").asubmit_many([{"order": 1}])
    with pytest.raises(UsageError, match=r"say what holds for a key; give key="):
        await ship.options(key_scope="ever").asubmit(1)
    with pytest.raises(UsageError, match=r"keys: 1 of them for 2 calls"):
        await ship.asubmit_many([{"order": 1}, {"order": 2}], keys=["a"])
    with pytest.raises(UsageError, match=r"keys\[1\]='': a text"):
        await ship.asubmit_many([{"order": 1}, {"order": 2}], keys=["a", ""])
    assert count(conn) == 0
