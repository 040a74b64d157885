"""Keys while everybody submits, starts and ends runs at once: one open run for each, and no newer input is lost."""

import json
from collections import Counter
from collections.abc import Callable

import anyio
import psycopg
import pytest
from support.blocking import rival
from support.crew import crew
from support.database import Conn
from support.hands import hire
from support.keyed import declare
from support.processes import Processes
from support.tables import claim, finish, one, perform
from support.until import until

from pgrun import PostgresDb, Worker
from pgrun._ids import new_run_id

COMMON = {"kind": "task", "name": "count", "max_attempts": 5}


@pytest.mark.slow
async def test_processes_that_submit_the_same_keys_make_one_open_run_of_each(
    db: PostgresDb, conn: Conn, processes: Processes
) -> None:
    await submit_from_processes(db, conn, processes, rounds=60)


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_many_times_processes_that_submit_the_same_keys_make_one_open_run_of_each(
    db: PostgresDb, conn: Conn, processes: Processes
) -> None:
    await submit_from_processes(db, conn, processes, rounds=2000)


async def submit_from_processes(db: PostgresDb, conn: Conn, processes: Processes, *, rounds: int) -> None:
    """Three that share keys and two with a key of their own, while a worker executes what they submit."""
    declare(db)
    conn.execute(
        "create table public.executed (number bigint generated always as identity, key text, n int); "
        "create function public.note() returns trigger language plpgsql as $$ begin "
        "insert into public.executed (key, n) values (new.key, (new.output #>> '{}')::int); return null; end $$; "
        "create trigger note after update on pgrun.jobs for each row when (new.status = 'completed') "
        "execute function public.note()"
    )
    started = [processes.program("keyed", "keep", str(rounds), f"k{n}") for n in range(3)]
    started += [processes.program("keyed", "replace", str(rounds), f"own {n}") for n in range(2)]
    async with Worker(db):
        said = [(await each.says(r"made (.*)\n", within=240))[1] for each in started]
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where finished_at is null") == 0)
    made = Counter(run_id for text in said for run_id in json.loads(text)[0])
    found = {run_id for text in said for run_id in json.loads(text)[1]}
    rows = {str(row["run_id"]) for row in conn.execute("select run_id from pgrun.jobs").fetchall()}
    assert {*made.values()} == {1}  # nobody has taken another's run for a new one
    assert made.keys() == rows
    assert found <= rows
    last = "select n from public.executed where key = %s order by number desc limit 1"
    assert [one(conn, last, f"own {n}") for n in range(2)] == [rounds - 1] * 2


def race(dsn: str, conn: Conn, worker_id: str, rounds: int) -> Counter[bool]:
    """A run with a key is ended while its key is submitted: either it is that run, or a new one."""
    outcomes: Counter[bool] = Counter()
    with crew(dsn) as threads:
        for number in range(rounds):
            key = f"k{number}"
            (first,) = submit(conn, [key])
            (row,) = claim(conn, worker_id)
            with psycopg.connect(dsn) as holder:  # both wait for this row, or for nothing
                if number % 2:
                    holder.execute("select from pgrun.jobs where run_id = %s for update", [row["run_id"]])
                ended = threads.start(finish, row["run_id"], row["fence"])
                again = threads.start(submit, [key])
            assert ended.result()
            ((run_id, is_new),) = again.result()
            assert is_new == (run_id != first[0])
            outcomes[is_new] += 1
            open_ones = "select count(*) from pgrun.jobs where key = %s and finished_at is null"
            assert one(conn, open_ones, key) == (1 if is_new else 0)
            for left in claim(conn, worker_id):
                finish(conn, left["run_id"], left["fence"])
    return outcomes


def submit(conn: Conn, keys: list[str], mode: str = "keep") -> list[tuple[str, bool]]:
    common = json.dumps({**COMMON, "on_duplicate": mode, "key_scope": "unfinished" if mode == "keep" else "pending"})
    run_ids = [new_run_id() for _ in keys]
    rows = perform(
        conn, "submit_runs", common=common, run_ids=run_ids, keys=keys, inputs=json.dumps([*range(len(keys))])
    )
    return [(row["submitted"], row["is_new"]) for row in rows]


async def test_a_key_that_is_submitted_while_its_run_ends_gives_that_run_or_a_new_one(
    db: PostgresDb, dsn: str, conn: Conn
) -> None:
    hand = await hire(db, names=["count"])
    outcomes = await anyio.to_thread.run_sync(race, dsn, conn, hand.worker_id, 16)
    assert sum(outcomes.values()) == 16


@pytest.mark.soak
@pytest.mark.timeout(400)
async def test_many_times_a_key_that_is_submitted_while_its_run_ends(db: PostgresDb, dsn: str, conn: Conn) -> None:
    hand = await hire(db, names=["count"])
    outcomes = await anyio.to_thread.run_sync(race, dsn, conn, hand.worker_id, 1500)
    assert outcomes.keys() == {True, False}


async def test_of_many_that_submit_a_key_at_the_same_moment_one_makes_the_run(dsn: str, conn: Conn) -> None:
    with crew(dsn) as threads:
        for number in range(8):
            with conn.transaction(force_rollback=True):  # all wait for one that comes first, and does not stay
                conn.execute(
                    "insert into pgrun.jobs (kind, name, key, key_scope) values ('task', 'count', %s, 'ever')",
                    [f"k{number}"],
                )
                answers = [threads.start(submit, [f"k{number}"]) for _ in range(8)]
                await until(lambda: waiting(conn) == 8)
            outcomes = [answer.result()[0] for answer in answers]
            assert len({run_id for run_id, _ in outcomes}) == 1
            assert sum(is_new for _, is_new in outcomes) == 1
    assert one(conn, "select count(*) from pgrun.jobs") == 8


def waiting(conn: Conn) -> int:
    conn.execute("select pg_stat_clear_snapshot()")
    mine = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    return int(one(conn, mine))


@pytest.mark.parametrize("mode", ["keep", "replace"])
async def test_calls_with_many_keys_in_any_order_never_wait_for_each_other_in_a_circle(
    dsn: str, conn: Conn, mode: str
) -> None:
    keys = [f"k{number}" for number in range(40)]
    orders: list[Callable[[], list[str]]] = [lambda: keys, lambda: keys[::-1], lambda: keys[20:] + keys[:20]]
    with crew(dsn) as threads:
        for _ in range(8):
            answers = [threads.start(submit, order(), mode) for order in orders * 2]
            for answer in answers:  # a deadlock would be an error here
                assert len(answer.result()) == 40
            assert one(conn, "select count(*) from pgrun.jobs") == 40
            conn.execute("delete from pgrun.jobs")


def keyed(key: str, session_id: str) -> str:
    """The insert of a run that waits and holds a key."""
    columns = "kind, name, input, key, key_scope, session_id"
    return f"insert into pgrun.jobs ({columns}) values ('task', 'count', '7', '{key}', 'pending', '{session_id}')"


def test_sessions_of_runs_that_hold_a_key_are_locked_before_those_runs(dsn: str, conn: Conn) -> None:
    for key, session_id in [("k1", "b"), ("k0", "a")]:
        conn.execute(keyed(key, session_id).encode())
    with rival(dsn) as other:
        with conn.transaction():
            conn.execute("select from pgrun.sessions where session_id = 'b' for update")
            answer = other.call(submit, ["k0", "k1"], "replace")
            other.until_blocked_by(conn)
            locked = conn.execute("select from pgrun.jobs for update nowait").fetchall()  # as whoever interrupts does
            assert len(locked) == 2
        assert [is_new for _, is_new in answer.result()] == [False, False]
    assert one(conn, "select array_agg(input order by key) from pgrun.jobs") == [0, 1]


def test_a_run_of_another_session_that_takes_the_key_meanwhile_gets_the_newer_input(dsn: str, conn: Conn) -> None:
    with rival(dsn) as other:
        with conn.transaction():
            conn.execute(keyed("k0", "b").encode())
            answer = other.call(submit, ["k0", "k1"], "replace")
            other.until_blocked_by(conn)
        assert [is_new for _, is_new in answer.result()] == [False, True]
    assert one(conn, "select array_agg(input order by key) from pgrun.jobs") == [0, 1]
