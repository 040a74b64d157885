"""claim_limited.sql: how many runs of a queue or key run at once, how fast they start, and whose turn it is."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random

import psycopg
import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, failed, hire, lose, submit
from support.rows import clock

from pgrun import PostgresDb
from pgrun.db.records import Claimed


def limit(conn: Conn, settings: str, queue: str = "default") -> None:
    conn.execute(f"update pgrun.queues set {settings} where queue = '{queue}'".encode())


def flood(conn: Conn, many: int, key: str | None = None, **columns: object) -> None:
    """So many runs of one key, whose input says which they are."""
    names, values = ", ".join(["name", "input", "concurrency_key", *columns]), ["%s"] * len(columns)
    conn.execute(
        f"insert into pgrun.jobs ({names}) select {', '.join(['%s', 'to_jsonb(%s || n)', '%s::text', *values])} "
        "from generate_series(1, %s) n".encode(),
        ["noop", key or "-", key, *columns.values(), many],
    )


def let_pass(conn: Conn, interval: str) -> None:
    """As if the buckets had been filled for so much longer."""
    conn.execute("update pgrun.meters set read_at = read_at - %s::interval", [interval])


async def look_claims(hand: Hand, many: int, *, next_due: float) -> None:
    """A look claims so many runs, and says in how many seconds to look again."""
    look = await hand.look_limited()
    assert len(look.claimed) == many
    assert look.next_due == pytest.approx(next_due, abs=0.5)


async def inputs(hand: Hand, slots: int = 100) -> list[str]:
    return sorted(run.input.strip('"') for run in await hand.claim_limited(slots))


async def test_no_more_of_a_queue_run_at_once_than_its_concurrency_says(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 10)
    limit(conn, "concurrency = 3")
    first, second = await hire(db), await hire(db)
    claimed = await first.claim_limited(2)
    assert len(claimed) == 2
    claimed += await second.claim_limited()
    assert len(claimed) == 3
    assert await first.claim_limited() == []
    await first.complete(claimed[0])
    assert len(await second.claim_limited()) == 1


async def test_the_usual_claims_leave_a_queue_with_limits_alone_and_say_so(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 3)
    limit(conn, "rate = 1")
    queues = ["default", "idle", "keyed", "other"]
    conn.execute("insert into pgrun.queues (queue, concurrency) values ('idle', 5), ('keyed', null), ('other', null)")
    await submit(db, queue="keyed", concurrency_key="a")
    await submit(db, queue="other")
    hand = await hire(db, queues=queues)
    assert await hand.claim_woken() == []
    look = await hand.verbs.claim(hand.worker_id, queues, [], 5, yields=False, horizon=10)
    assert [run.queue for run in look.claimed] == ["other"]
    assert look.apart == {"default": True, "idle": False, "keyed": True}


async def test_each_key_takes_its_turn(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 50, "a")
    flood(conn, 2, "b")
    flood(conn, 1)
    flood(conn, 1, "c")
    hand = await hire(db)
    assert [await inputs(hand, 1) for _ in range(7)] == [["a1"], ["b1"], ["c1"], ["-1"], ["a2"], ["b2"], ["a3"]]


async def test_a_batch_takes_one_of_each_key_then_a_second_of_each(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 50, "a")
    flood(conn, 2, "b")
    flood(conn, 1, "c")
    hand = await hire(db)
    assert await inputs(hand, 6) == ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert len(await hand.claim_limited(100)) == 47


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_more_urgent_comes_first_wherever_the_last_claim_stopped(
    db: PostgresDb, conn: Conn, seed: int
) -> None:
    """Also what is submitted behind it, falls due meanwhile, or has another key."""
    chance = Random(seed)
    limit(conn, "concurrency = 1000")
    hand = await hire(db)
    pending = "select priority from pgrun.jobs where status = 'pending' and due_at <= now() order by priority"
    for _ in range(40):
        for _ in range(chance.randint(0, 3)):
            flood(
                conn,
                chance.randint(1, 4),
                chance.choice([None, "a", "b"]),
                priority=chance.randint(-2, 2),
                due_at=clock(conn) + timedelta(hours=chance.choice([-1, -1, 0, 1])),
            )
        conn.execute("update pgrun.jobs set due_at = now() where due_at > now() and random() < 0.1")
        waiting = [row["priority"] for row in conn.execute(pending).fetchall()]
        slots = chance.randint(1, 6)
        claimed = list[int]()
        while len(claimed) < min(slots, len(waiting)):
            look = await hand.look_limited(slots - len(claimed))
            claimed += [run.priority for run in look.claimed]
            if len(claimed) < min(slots, len(waiting)):  # because one key had few: it says that there are more
                assert look.claimed
                assert look.next_due is not None
                assert look.next_due <= 0
        assert claimed == waiting[:slots]


async def test_a_claim_says_for_how_long_it_has_waited_for_another(db: PostgresDb, conn: Conn, dsn: str) -> None:
    flood(conn, 2)
    limit(conn, "concurrency = 5")
    hand = await hire(db)
    with psycopg.connect(dsn) as other:
        other.execute("select from pgrun.queues where queue = 'default' for update")
        look = await hand.look_limited(1)
    assert look.claimed == []
    assert look.waited >= 0.09  # after a tenth of a second it gives up
    look = await hand.look_limited(1)
    assert len(look.claimed) == 1
    assert look.waited < 0.09


async def test_no_more_of_a_key_run_at_once_than_key_concurrency_says(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 5, "a")
    flood(conn, 3, "b")
    flood(conn, 3)
    limit(conn, "key_concurrency = 2, concurrency = 6")
    hand = await hire(db)
    claimed = await hand.claim_limited()
    assert sorted(run.input for run in claimed) == ['"-1"', '"-2"', '"a1"', '"a2"', '"b1"', '"b2"']
    await hand.complete(*claimed)
    assert await inputs(hand) == ["-3", "a3", "a4", "b3"]


async def test_however_a_run_stops_running_its_place_is_free_and_workers_are_told(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    flood(conn, 9, "a")
    limit(conn, "key_concurrency = 1")
    other = await hire(db)
    verbs = other.verbs

    async def cancel_without_worker(run: Claimed, hand: Hand) -> None:
        lose(conn, hand)
        await verbs.cancel(run.run_id)

    async def rescue(_: Claimed, hand: Hand) -> None:
        lose(conn, hand)
        assert await other.claim_limited() == []  # until it is rescued it may be running
        await verbs.rescue(other.worker_id)

    ends: dict[str, Callable[[Claimed, Hand], Awaitable[object]]] = {
        "completed": lambda run, hand: hand.complete(run),
        "failed": lambda run, _: verbs.finish([failed(run)]),
        "retried": lambda run, _: verbs.retry(run, delay=60, error={}, metrics=None),
        "released": lambda run, _: verbs.release([(run.run_id, run.fence)], delay=60),
        "parked": lambda run, _: verbs.park(run, metrics=None),
        "paused": lambda run, _: verbs.pause(run, [], holds_session=False, metrics=None, tools=None),
        "cancelled": cancel_without_worker,
        "rescued": rescue,
    }
    for name, end in ends.items():
        hand = await hire(db)
        (run,) = await hand.claim_limited()
        assert await other.claim_limited() == [], name
        ear.heard()
        await end(run, hand)
        assert ("wake", "default") in ear.heard(), name
    assert len(await other.claim_limited()) == 1


async def test_nobody_is_told_of_a_place_where_places_are_not_counted(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    flood(conn, 1, "a")
    limit(conn, "rate = 5")
    hand = await hire(db)
    claimed = await hand.claim_limited()
    ear.heard()
    await hand.complete(*claimed)
    assert ear.heard() == [("done", claimed[0].run_id)]


async def test_a_bucket_lets_start_what_burst_says_and_then_what_the_rate_says(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 20)
    limit(conn, "rate = 10, per = '1 minute', burst = 3")
    hand = await hire(db)
    await look_claims(hand, 3, next_due=6)
    let_pass(conn, "12.5 s")
    await look_claims(hand, 2, next_due=5.5)
    let_pass(conn, "1 day")
    assert len(await hand.claim_limited()) == 3


async def test_without_burst_as_many_may_start_at_once_as_the_rate_says(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 20)
    limit(conn, "rate = 7, per = '1 hour'")
    hand = await hire(db)
    assert len(await hand.claim_limited()) == 7


async def test_a_heavy_run_is_not_overtaken_by_light_ones(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 1, weight=4)
    flood(conn, 1, weight=7)
    flood(conn, 5)
    limit(conn, "rate = 10, per = '100 s'")
    hand = await hire(db)
    await look_claims(hand, 1, next_due=10)
    let_pass(conn, "10.5 s")
    assert len(await hand.claim_limited()) == 1


async def test_one_that_is_heavier_than_the_burst_starts_when_the_bucket_is_full_and_others_pay_for_it(
    db: PostgresDb, conn: Conn
) -> None:
    flood(conn, 1, weight=25)
    flood(conn, 1)
    limit(conn, "rate = 10, per = '10 s'")
    hand = await hire(db)
    await look_claims(hand, 1, next_due=16)


async def test_small_priorities_come_first_whatever_their_key(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 2, "a", priority=1)
    flood(conn, 2, "b", priority=0)
    flood(conn, 1, priority=-1)
    hand = await hire(db)
    assert [await inputs(hand, 1) for _ in range(5)] == [["-1"], ["b1"], ["b2"], ["a1"], ["a2"]]


async def test_a_look_tells_when_the_next_run_of_any_key_will_be_due(db: PostgresDb, conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, concurrency_key, priority, due_at) select 'noop', 'k' || n, n, "
        "now() + make_interval(secs => 9 - n) from generate_series(1, 3) n"
    )
    hand = await hire(db)
    await look_claims(hand, 0, next_due=6)


async def test_limits_can_be_changed_at_any_time(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    flood(conn, 20)
    hand = await hire(db)
    assert len(await hand.claim(5)) == 5
    ear.heard()
    limit(conn, "concurrency = 3")
    assert ear.heard() == [("soon", "default")]
    assert await hand.claim() == await hand.claim_limited() == []
    limit(conn, "concurrency = 7")
    assert len(await hand.claim_limited()) == 2
    limit(conn, "concurrency = null")
    assert len(await hand.claim()) == 13


async def test_what_was_earned_at_the_old_rate_is_counted_at_the_old_rate(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 100)
    limit(conn, "rate = 10, per = '1 minute', burst = 10")
    hand = await hire(db)
    assert len(await hand.claim_limited()) == 10
    let_pass(conn, "12 s")
    limit(conn, "rate = 1000")
    assert len(await hand.claim_limited()) < 5


async def test_a_pause_stops_a_queue_with_limits_too(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 1, "a")
    conn.execute("select pgrun.pause_queue('default', now() + interval '5 s')")
    hand = await hire(db)
    await look_claims(hand, 0, next_due=5)
    conn.execute("select pgrun.resume_queue('default')")
    assert len(await hand.claim_limited()) == 1


async def test_whoever_changes_a_queue_for_long_does_not_stop_workers(db: PostgresDb, conn: Conn, dsn: str) -> None:
    flood(conn, 1, "a")
    hand = await hire(db)
    with psycopg.connect(dsn) as somebody:
        somebody.execute("update pgrun.queues set concurrency = 5")
        look = await hand.look_limited()
        assert look.claimed == []
    assert look.next_due == pytest.approx(0.05, abs=0.05)
    assert len(await hand.claim_limited()) == 1


async def test_a_run_that_somebody_has_locked_is_passed_over(db: PostgresDb, conn: Conn, dsn: str) -> None:
    flood(conn, 2, "a")
    limit(conn, "concurrency = 1")
    hand = await hire(db)
    with psycopg.connect(dsn) as somebody:
        somebody.execute("select from pgrun.jobs where input = '\"a1\"' for update")
        assert await inputs(hand) == ["a2"]


async def test_a_worker_that_was_found_dead_gets_nothing(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 1, "a")
    hand = await hire(db)
    await hand.verbs.stop_worker(hand.worker_id)
    assert await hand.claim_limited() == []


async def test_a_run_is_left_to_the_worker_that_knows_its_name(db: PostgresDb, conn: Conn) -> None:
    flood(conn, 3, "a")
    stranger, expert = await hire(db), await hire(db, names=["noop"])
    assert await stranger.claim_limited() == []
    assert len(await expert.claim_limited(2)) == 2
    await expert.verbs.stop_worker(expert.worker_id)
    assert len(await stranger.claim_limited()) == 3  # two were given back; nobody else could say that it is unknown


async def test_thousands_of_keys_that_wait_for_their_time_hide_none_that_is_due(db: PostgresDb, conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, concurrency_key, due_at) select 'noop', 'k' || n, "
        "case n when 2345 then now() else now() + interval '1 h' end from generate_series(1, 3000) n"
    )
    hand = await hire(db)
    looks = [await hand.look_limited(1) for _ in range(4)]
    assert [run for look in looks for run in look.claimed]
    assert all(look.next_due is not None and look.next_due < 0.1 for look in looks[:2] if not look.claimed)


async def test_thousands_of_keys_that_wait_for_their_time_cost_no_looks(db: PostgresDb, conn: Conn) -> None:
    """Nor where the last claim left runs of their priority."""
    conn.execute(
        "insert into pgrun.jobs (name, concurrency_key, due_at) select 'noop', 'k' || n, "
        "now() + case when n <= 2 then interval '0' else interval '1 h' end from generate_series(1, 3000) n"
    )
    hand = await hire(db)
    looks = [await hand.look_limited(1) for _ in range(8)]  # each passes a thousand keys, while anything is due
    assert sum(len(look.claimed) for look in looks) == 2
    assert looks[-1].next_due == pytest.approx(3600, abs=60)


async def test_keys_get_the_same_of_a_flood_of_different_keys(db: PostgresDb, conn: Conn) -> None:
    for key in ("a", "b", "c"):
        flood(conn, 40, key)
    hand = await hire(db)
    taken = [run.input[1] for _ in range(6) for run in await hand.claim_limited(10)]
    assert {taken.count(key) for key in "abc"} == {20}
