"""claim_runs.sql: which runs a worker gets, in which order, and when the next one will be due."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import anyio
import psycopg
import pytest
from psycopg.rows import dict_row
from support.database import Conn
from support.hands import hire, lose, submit
from support.rows import row_of
from support.tables import claim, one, perform
from support.until import until

from pgrun import PostgresDb, Worker


def put(conn: Conn, columns: str, values: str) -> None:
    """Inserts runs by plain SQL; its input says which it is."""
    conn.execute(f"insert into pgrun.jobs (name, input, {columns}) values {values}".encode())


async def test_the_smallest_priority_comes_first_then_the_earliest_due_then_the_smallest_id(
    db: PostgresDb, conn: Conn
) -> None:
    put(
        conn,
        "priority, due_at, run_id",
        """('noop', '5', 0, now() - interval '1 min', '00000000-0000-7000-8000-000000000009'),
           ('noop', '2', -1, now() - interval '1 min', '00000000-0000-7000-8000-000000000003'),
           ('noop', '3', 0, now() - interval '1 min', '00000000-0000-7000-8000-000000000001'),
           ('noop', '6', 7, now() - interval '1 day', '00000000-0000-7000-8000-000000000004'),
           ('noop', '1', -1, now() - interval '2 min', '00000000-0000-7000-8000-000000000005'),
           ('noop', '4', 0, now() - interval '1 min', '00000000-0000-7000-8000-000000000002')""",
    )
    hand = await hire(db)
    order = [int((await hand.claim_one()).input) for _ in range(6)]
    assert order == [1, 2, 3, 4, 5, 6]


async def test_what_is_claimed_in_one_go_comes_in_the_same_order(db: PostgresDb, conn: Conn) -> None:
    put(conn, "priority", ", ".join(f"('noop', '{n}', {(n * 7) % 50})" for n in range(50)))
    hand = await hire(db)
    assert [run.priority for run in await hand.claim(50)] == [*range(50)]


async def test_no_more_than_the_free_slots_are_claimed_and_they_are_the_first(db: PostgresDb, conn: Conn) -> None:
    put(conn, "priority", ", ".join(f"('noop', '{n}', {n})" for n in range(7)))
    hand = await hire(db)
    assert {int(run.input) for run in await hand.claim(3)} == {0, 1, 2}
    assert {int(run.input) for run in await hand.claim(3)} == {3, 4, 5}
    assert {int(run.input) for run in await hand.claim(3)} == {6}
    assert await hand.claim(3) == []


async def test_several_queues_share_the_slots_by_priority_and_others_are_left_alone(db: PostgresDb, conn: Conn) -> None:
    put(
        conn,
        "queue, priority",
        "('noop', '1', 'a', 1), ('noop', '2', 'b', 2), ('noop', '3', 'a', 3), ('noop', '4', 'b', 4), ('noop', '0', 'c', 0)",
    )
    hand = await hire(db, queues=["a", "b"])
    assert {int(run.input) for run in await hand.claim(3)} == {1, 2, 3}
    assert {int(run.input) for run in await hand.claim(3)} == {4}
    assert one(conn, "select input from pgrun.jobs where status = 'pending'") == 0


async def test_a_slot_that_one_queue_does_not_need_is_not_locked_away_from_others(db: PostgresDb, conn: Conn) -> None:
    """Each queue is scanned up to the limit; whatever is beyond it in total stays pending and can be claimed."""
    put(conn, "queue", ", ".join(f"('noop', '{n}', '{queue}')" for n in range(4) for queue in "ab"))
    first, second = await hire(db, queues=["a", "b"]), await hire(db, queues=["b", "a"])
    assert len(await first.claim(4)) == 4
    assert len(await second.claim(4)) == 4


@pytest.mark.parametrize("statement", ["claim_runs", "claim_woken"])
async def test_no_priority_is_locked_for_what_another_one_has_given(
    db: PostgresDb, dsn: str, conn: Conn, statement: str
) -> None:
    put(conn, "priority", ", ".join(f"('noop', '{n}', {n // 2})" for n in range(10)))
    hand = await hire(db, names=["noop"])
    look = {"names": ["noop"], "slots": 3, "yields": False, "horizon": 10}
    begin = {"from_priorities": [-32768], "from_dues": [float("-inf")]}
    with conn.transaction():
        claimed = perform(
            conn, statement, worker_id=hand.worker_id, queue="default", queues=["default"], **begin, **look
        )
        assert len(claimed) == 3
        with psycopg.connect(dsn) as other:
            free = other.execute("select from pgrun.jobs where status = 'pending' for update skip locked")
            assert free.rowcount == 7


async def test_a_look_from_a_position_leaves_out_what_is_before_it(db: PostgresDb, conn: Conn) -> None:
    """The same priority from its moment on, and the later ones whole."""
    put(
        conn,
        "priority, due_at",
        """('noop', '1', -1, now() - interval '1 min'),
           ('noop', '2', 0, now() - interval '5 min'),
           ('noop', '3', 0, now() - interval '3 min'),
           ('noop', '4', 0, now() - interval '1 min'),
           ('noop', '5', 7, now() - interval '9 min')""",
    )
    hand = await hire(db)
    place = (0, one(conn, "select extract(epoch from due_at)::float8 from pgrun.jobs where input = '3'"))
    look = await hand.verbs.claim(
        hand.worker_id, ["default"], [], 100, yields=False, horizon=10, positions={"default": place}
    )
    assert [int(run.input) for run in look.claimed] == [3, 4, 5]
    assert [int(run.input) for run in await hand.claim()] == [1, 2]


async def test_of_many_queues_each_is_locked_for_its_share_only(db: PostgresDb, dsn: str, conn: Conn) -> None:
    queues = [f"q{number}" for number in range(20)]
    put(conn, "queue", ", ".join(f"('noop', '{n}', '{queue}')" for queue in queues for n in range(50)))
    first, second = await hire(db, queues=queues), await hire(db, queues=queues)
    with conn.transaction():
        assert len(claim(conn, first.worker_id, slots=100, queues=queues)) == 100
        free = "select count(*) from (select from pgrun.jobs where status = 'pending' for update skip locked) unlocked"
        with psycopg.connect(dsn, row_factory=dict_row) as other:
            assert one(other, free) == 1000 - 20 * 18  # twice a twentieth of 100, and eight
    assert len(await second.claim(100)) == 100


async def test_a_worker_with_many_queues_looks_again_at_once_where_one_has_given_its_share(
    db: PostgresDb, conn: Conn
) -> None:
    queues = [f"q{number}" for number in range(20)]
    put(conn, "queue", ", ".join(f"('noop', '{n}', 'q7')" for n in range(40)))
    hand = await hire(db, queues=queues)
    counts, pauses = list[int](), list[float | None]()
    while not counts or counts[-1]:
        claimed, pause, *_ = await hand.verbs.claim(hand.worker_id, queues, [], 100, yields=False, horizon=10)
        counts.append(len(claimed))
        pauses.append(pause)
    assert counts == [18, 18, 4, 0]
    assert pauses == [0, 0, None, None]


async def test_a_worker_with_many_queues_drains_a_backlog_in_one_of_them(db: PostgresDb, conn: Conn) -> None:
    @db.task
    async def noop() -> None: ...

    queues = [f"q{number}" for number in range(100)]
    conn.execute("insert into pgrun.queues (queue) select 'q' || n from generate_series(0, 99) n")
    async with Worker(db, queues=queues, concurrency=20):
        await noop.options(queue="q42").asubmit_many([{}] * 500)
        with anyio.fail_after(10):
            await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'completed'") == 500)


async def test_a_claim_uses_an_attempt_and_raises_the_fence(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, max_attempts=3, metadata={"a": 1}, input=["x"], session_id="s")
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert (claimed.run_id, claimed.attempt, claimed.max_attempts, claimed.fence) == (run_id, 1, 3, 1)
    assert (claimed.input, claimed.session_id, claimed.queue) == ('["x"]', "s", "default")
    row = row_of(conn, run_id)
    assert (row["status"], row["attempt"], row["fence"], str(row["worker_id"])) == ("running", 1, 1, hand.worker_id)
    assert row["started_at"] is not None

    await hand.verbs.retry(claimed, delay=0, error={"message": "broke"}, metrics={"total_tokens": 5})
    again = await hand.claim_one()
    assert (again.attempt, again.fence, again.metrics) == (2, 2, '{"total_tokens": 5}')


async def test_a_run_is_not_claimed_before_it_is_due(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, delay=60)
    hand = await hire(db)
    assert await hand.claim() == []
    conn.execute("update pgrun.jobs set due_at = now()")
    assert [run.run_id for run in await hand.claim()] == [run_id]


@pytest.mark.parametrize("status", ["running", "paused", "completed", "error", "cancelled"])
async def test_only_pending_runs_are_claimed(db: PostgresDb, conn: Conn, status: str) -> None:
    run_id = await submit(db)
    conn.execute(
        "update pgrun.jobs set status = %s, finished_at = case when %s then now() end where run_id = %s",
        [status, status in ("completed", "error", "cancelled"), run_id],
    )
    assert await (await hire(db)).claim() == []


async def test_a_held_run_is_never_claimed(db: PostgresDb, conn: Conn) -> None:
    first, second = await submit(db, session_id="s"), await submit(db, session_id="s")
    hand = await hire(db)
    assert [run.run_id for run in await hand.claim()] == [first]
    assert await hand.claim() == []
    assert row_of(conn, second)["held"] == "session"


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db, queues=["default", "mail"])
    await submit(db)
    await submit(db, queue="mail")
    conn.execute("select pgrun.pause_queue('mail')")
    assert [run.queue for run in await hand.claim()] == ["default"]
    conn.execute("select pgrun.resume_queue('mail')")
    assert [run.queue for run in await hand.claim()] == ["mail"]


async def test_a_pause_ends_by_itself_when_its_moment_has_come(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    await submit(db)
    conn.execute("select pgrun.pause_queue('default', now() + interval '1 h')")
    assert await hand.claim() == []
    conn.execute("update pgrun.queues set resume_at = now() - interval '1 s'")
    assert len(await hand.claim()) == 1


async def test_a_worker_that_was_stopped_gets_nothing(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    await submit(db)
    await hand.verbs.stop_worker(hand.worker_id)
    assert await hand.claim() == []
    assert one(conn, "select status from pgrun.jobs") == "pending"


async def test_a_worker_that_nobody_knows_gets_nothing(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    await submit(db)
    conn.execute("delete from pgrun.workers")
    assert await hand.claim() == []


async def test_a_claim_does_not_wait_for_rows_that_someone_else_has_locked(db: PostgresDb, conn: Conn) -> None:
    locked, free = await submit(db, priority=-1), await submit(db)
    hand = await hire(db)
    with conn.transaction():
        conn.execute("select from pgrun.jobs where run_id = %s for update", [locked])
        assert [run.run_id for run in await hand.claim()] == [free]
    assert [run.run_id for run in await hand.claim()] == [locked]


@pytest.mark.slow
async def test_no_run_is_ever_claimed_twice_by_many_workers_at_once(db: PostgresDb, dsn: str, conn: Conn) -> None:
    conn.execute("insert into pgrun.jobs (name, priority) select 'noop', n % 3 from generate_series(1, 600) n")
    hands = [await hire(db) for _ in range(12)]
    start = Barrier(len(hands))

    def claim_everything(worker_id: str) -> list[str]:
        mine: list[str] = []
        nothing = 0
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as own:
            start.wait()
            while nothing < 2:  # a row that another one has locked is skipped, but stays the other's
                claimed = [str(row["run_id"]) for row in claim(own, worker_id, slots=5)]
                mine += claimed
                nothing = 0 if claimed else nothing + 1
        return mine

    with ThreadPoolExecutor(len(hands)) as threads:
        taken = [*threads.map(claim_everything, [hand.worker_id for hand in hands])]
    counted = Counter(run_id for mine in taken for run_id in mine)
    assert len(counted) == 600
    assert set(counted.values()) == {1}
    assert one(conn, "select array_agg(distinct (attempt, fence)::text) from pgrun.jobs") == ["(1,1)"]
    for hand, mine in zip(hands, taken, strict=True):
        held = one(conn, "select count(*) from pgrun.jobs where worker_id = %s", hand.worker_id)
        assert held == len(mine)


async def test_with_yields_it_steps_back_from_what_a_live_daemon_can_execute(db: PostgresDb, conn: Conn) -> None:
    embedded = await hire(db, mode="embedded", queues=["default", "mail"], names=["mine"])
    daemon = await hire(db, names=["known"])
    for name, queue in [("known", "default"), ("unknown", "default"), ("mine", "default"), ("known", "mail")]:
        await submit(db, name=name, queue=queue)
    for queue in ("default", "mail"):
        await submit(db, name="declared", queue=queue, definition={})

    claimed = {(run.name, run.queue) for run in await embedded.claim(yields=True)}
    assert claimed == {("unknown", "default"), ("mine", "default"), ("known", "mail"), ("declared", "mail")}

    lose(conn, daemon)
    assert {run.name for run in await embedded.claim(yields=True)} == {"known", "declared"}


async def test_it_steps_back_only_when_it_is_asked_to_and_only_from_daemons(db: PostgresDb) -> None:
    embedded = await hire(db, mode="embedded", names=["known"])
    await hire(db, mode="embedded", names=["known"])
    await submit(db, name="known")
    assert len(await embedded.claim(yields=True)) == 1

    await hire(db, names=["known"])
    await submit(db, name="known")
    assert await embedded.claim(yields=True) == []
    assert len(await embedded.claim(yields=False)) == 1


async def test_it_does_not_step_back_from_a_daemon_that_drains(db: PostgresDb, conn: Conn) -> None:
    embedded, daemon = await hire(db, mode="embedded"), await hire(db, names=["known"])
    conn.execute("update pgrun.workers set draining = true where worker_id = %s", [daemon.worker_id])
    await submit(db, name="known")
    assert len(await embedded.claim(yields=True)) == 1


async def test_a_run_that_needs_code_is_left_to_the_worker_that_has_it(db: PostgresDb, conn: Conn) -> None:
    ignorant, knowing = await hire(db), await hire(db, names=["mail"])
    run_id = await submit(db, name="mail")
    assert await ignorant.claim() == []
    assert [run.run_id for run in await knowing.claim()] == [run_id]


async def test_a_run_that_needs_code_nobody_alive_has_is_claimed_by_anybody(db: PostgresDb, conn: Conn) -> None:
    ignorant = await hire(db)
    for left in ("lost", "stopped", "draining", "elsewhere"):
        knowing = await hire(db, names=["mail"], queues=["elsewhere" if left == "elsewhere" else "default"])
        await submit(db, name="mail")
        match left:
            case "lost":
                lose(conn, knowing)
            case "stopped":
                await knowing.verbs.stop_worker(knowing.worker_id)
            case "draining":
                conn.execute("update pgrun.workers set draining = true where worker_id = %s", [knowing.worker_id])
        assert len(await ignorant.claim()) == 1, left


async def test_without_anything_to_come_nothing_is_due_next(db: PostgresDb) -> None:
    assert await (await hire(db)).next_due() is None


async def test_what_comes_beyond_the_horizon_is_not_announced(db: PostgresDb) -> None:
    hand = await hire(db)
    await submit(db, delay=60)
    assert await hand.next_due(horizon=50) is None
    assert await hand.next_due(horizon=70) == pytest.approx(60, abs=5)


async def test_the_next_due_run_is_announced_exactly(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    run_id = await submit(db, delay=100)
    seconds = await hand.next_due(horizon=200)
    left = one(conn, "select extract(epoch from due_at - now())::float8 from pgrun.jobs where run_id = %s", run_id)
    assert seconds is not None
    assert left <= seconds <= 100  # `left` was measured a moment later


async def test_the_next_due_run_is_found_over_all_priorities_and_queues_served(db: PostgresDb) -> None:
    hand = await hire(db, queues=["a", "b"])
    await hire(db, queues=["c"])
    for delay, priority, queue in [(500, -5, "a"), (300, 9, "a"), (400, 0, "b"), (200, 3, "c")]:
        await submit(db, delay=delay, priority=priority, queue=queue)
    assert await hand.next_due(horizon=1000) == pytest.approx(300, abs=5)
    await submit(db, delay=100, priority=4, queue="b")
    assert await hand.next_due(horizon=1000) == pytest.approx(100, abs=5)


async def test_neither_held_nor_running_runs_are_announced(db: PostgresDb) -> None:
    hand = await hire(db)
    await submit(db, session_id="s")
    await hand.claim_one()
    await submit(db, session_id="s", delay=5)
    assert await hand.next_due() is None


async def test_a_claim_that_gets_something_announces_what_comes_next_too(db: PostgresDb) -> None:
    hand = await hire(db)
    await submit(db)
    await submit(db)
    await submit(db, delay=100)
    claimed, seconds, *_ = await hand.verbs.claim(hand.worker_id, ["default"], [], 5, yields=False, horizon=1000)
    assert len(claimed) == 2
    assert seconds == pytest.approx(100, abs=5)
