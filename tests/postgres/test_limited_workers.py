"""Workers and the limits of their queues: room is used at once, tokens are slept for, and nobody waits for the next poll."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.rows import row_of
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import Agent, PostgresDb, Run, Task, UsageError, Worker
from pgrun.db.verbs import Verbs

PATIENT = replace(FAST, lease=10.0, poll_interval=60.0)  # whoever is not told waits for a minute


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[PostgresDb]:
    async with PostgresDb(dsn, worker="external", settings=PATIENT) as database:
        yield database


class Gate:
    """A task whose runs wait until they are let go, one by one."""

    def __init__(self, db: PostgresDb) -> None:
        self.inside: list[str] = []
        self._let_go: dict[str, anyio.Event] = {}
        self.task: Task[[str], None] = db.task(name="gate")(self._pass)

    async def _pass(self, name: str) -> None:
        self._let_go[name] = anyio.Event()
        self.inside.append(name)
        await self._let_go[name].wait()

    def has(self, many: int) -> bool:
        return len(self.inside) == many

    async def submit(self, *names: str, **options: Any) -> list[Run[None]]:
        return await self.task.options(**options).asubmit_many([{"name": name} for name in names])

    def let_go(self, *names: str) -> None:
        for name in names:
            self._let_go[name].set()


async def test_room_in_a_queue_is_used_at_once_by_whichever_worker_waits(db: PostgresDb) -> None:
    gate = Gate(db)
    await db.aset_queue("default", concurrency=1)
    async with Worker(db, concurrency=5), Worker(db, concurrency=5):
        runs = await gate.submit("a", "b", "c")
        for done, run in enumerate(runs, 1):
            await until(partial(gate.has, done), within=5)
            gate.let_go(*gate.inside[-1:])
            await run.aresult(timeout=5)
    assert gate.inside == ["a", "b", "c"]


async def test_a_place_that_nobody_tells_of_is_found_by_a_look(db: PostgresDb, dsn: str, conn: Conn) -> None:
    conn.execute("drop trigger jobs_left_room on pgrun.jobs")
    async with PostgresDb(dsn, worker="external", settings=replace(PATIENT, poll_interval=0.1)) as hasty:
        gate = Gate(hasty)
        await hasty.aset_queue("default", concurrency=1)
        async with Worker(hasty):
            runs = await gate.submit("a", "b")
            for name, run in zip("ab", runs, strict=True):
                await until(partial(gate.inside.count, name))
                gate.let_go(name)
                await run.aresult(timeout=5)


async def test_a_worker_sleeps_until_the_next_token(db: PostgresDb, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[float]()
    claim_limited = Verbs.claim_limited

    async def counted(self: Verbs, *args: Any, **options: Any) -> Any:
        looks.append(anyio.current_time())
        return await claim_limited(self, *args, **options)

    monkeypatch.setattr(Verbs, "claim_limited", counted)

    @db.task
    async def stamp() -> float:
        return anyio.current_time()

    await db.aset_queue("default", rate=10, burst=1)
    async with Worker(db):
        runs = await stamp.asubmit_many([{}] * 5)
        times = sorted([await run.aresult(timeout=5) for run in runs])
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) > 0.05
    assert times[-1] - times[0] > 0.35
    assert len(looks) < 25  # each end is told, and each token waited for


async def test_a_limit_that_is_raised_holds_at_once(db: PostgresDb) -> None:
    gate = Gate(db)
    await db.aset_queue("default", concurrency=1)
    async with Worker(db):
        await gate.submit(*"abcd")
        await until(lambda: gate.inside)
        await db.aset_queue("default", concurrency=3)
        await until(lambda: len(gate.inside) == 3, within=5)
        await db.aset_queue("default", concurrency=None)
        await until(lambda: len(gate.inside) == 4, within=5)
        gate.let_go(*"abcd")


async def test_a_pause_ends_at_its_moment_and_not_at_the_next_look(db: PostgresDb) -> None:
    gate = Gate(db)
    await db.apause_queue("default", resume_after=0.3)
    async with Worker(db):
        (run,) = await gate.submit("a")
        await until(lambda: gate.inside, within=5)
        gate.let_go("a")
        await run.aresult(timeout=5)


@pytest.mark.parametrize("key_concurrency", [None, 2])
async def test_one_run_of_another_key_is_next_whatever_waits_before_it(
    db: PostgresDb, key_concurrency: int | None
) -> None:
    gate = Gate(db)
    await db.aset_queue("default", key_concurrency=key_concurrency)
    async with Worker(db, concurrency=2 if key_concurrency is None else 3):
        await gate.submit(*(f"a{n}" for n in range(50)), concurrency_key="a")
        await until(lambda: len(gate.inside) == 2)
        await gate.submit("b", concurrency_key="b")
        if key_concurrency is None:
            gate.let_go("a0")
        await until(lambda: len(gate.inside) == 3, within=5)
        assert gate.inside == ["a0", "a1", "b"]
        await db.apause_queue("default")  # first, or others would go in that nobody lets go
        for name in gate.inside:
            gate.let_go(name)


async def test_neither_queues_with_limits_nor_others_keep_each_other_waiting(db: PostgresDb, conn: Conn) -> None:
    conn.execute("insert into pgrun.queues (queue, concurrency) values ('mail', 2)")

    @db.task
    async def noop() -> None: ...

    await noop.options(queue="mail").asubmit_many([{}] * 100)
    await noop.asubmit_many([{}] * 100)
    async with Worker(db, queues=["default", "mail"], concurrency=2):
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'completed'") == 200)
    half = "(select queue from pgrun.jobs order by started_at limit 100) half"
    assert one(conn, f"select count(*) filter (where queue = 'mail') from {half}") == pytest.approx(50, abs=10)


async def test_a_worker_that_waits_for_room_in_one_queue_finds_what_is_new_in_others(
    db: PostgresDb, conn: Conn
) -> None:
    conn.execute("insert into pgrun.queues (queue, concurrency) values ('full', 1), ('mail', 1), ('keyed', null)")
    gate = Gate(db)
    async with Worker(db, queues=["full", "mail", "keyed"]):
        await gate.submit("a", "b", queue="full")
        await until(partial(gate.has, 1))
        for done, name in enumerate(("mail", "keyed"), 2):
            with conn.transaction():  # so that the worker is woken for everything at once
                conn.execute("select pg_notify('pgrun_wake', 'full'), pg_notify('pgrun_soon', 'full')")
                conn.execute(
                    "insert into pgrun.jobs (name, queue, input, concurrency_key) "
                    "values ('gate', %s, jsonb_build_object('name', %s::text), 'k')",
                    [name, name],
                )
            await until(partial(gate.has, done), within=5)
        gate.let_go("a")
        await until(partial(gate.has, 4), within=5)
        gate.let_go("b", "mail", "keyed")


async def test_key_and_weight_of_a_run_are_stored(db: PostgresDb, conn: Conn) -> None:
    @db.task
    async def noop() -> None: ...

    heavy = noop.options(concurrency_key="ada", weight=7)
    one_run, (of_many,) = await heavy.asubmit(), await heavy.asubmit_many([{}])
    agent = Agent(name="Poet", model="gpt-5-mini", db=db)
    asked = await agent.arun("a poem", background=True, concurrency_key="ada", weight=7)
    for run_id in (one_run.run_id, of_many.run_id, asked.run_id):
        row = row_of(conn, run_id)
        assert (row["concurrency_key"], row["weight"]) == ("ada", 7)
    plain = row_of(conn, (await noop.asubmit()).run_id)
    assert (plain["concurrency_key"], plain["weight"]) == (None, None)


@pytest.mark.parametrize(
    "limits",
    [
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"rate": 0},
        {"rate": float("nan")},
        {"per": 0},
        {"burst": 0.5},
        {"pace": 1},
    ],
)
async def test_a_limit_that_cannot_be_is_refused_with_its_name(db: PostgresDb, limits: Any) -> None:
    with pytest.raises(UsageError, match=next(iter(limits))):
        await db.aset_queue("default", **limits)


async def test_what_is_not_mentioned_stays_and_none_is_no_limit(db: PostgresDb) -> None:
    await db.aset_queue("mail", concurrency=3, rate=2, per=60)
    await db.aset_queue("mail", concurrency=None, key_concurrency=1)
    mail = (await db.aqueues())["mail"]
    assert (mail["concurrency"], mail["key_concurrency"], mail["rate"], mail["per"].total_seconds()) == (None, 1, 2, 60)


def test_queues_are_controlled_without_an_event_loop_too(dsn: str) -> None:
    db = PostgresDb(dsn, worker="external")
    db.set_queue("mail", concurrency=3)
    db.pause_queue("mail", resume_after=60)
    assert (db.queues()["mail"]["concurrency"], db.queues()["mail"]["paused"]) == (3, True)
    db.resume_queue("mail")
    assert db.queues()["mail"]["paused"] is False
    db.close()
