"""claim_limited.sql: how many runs of a queue or key run at once, how fast they start, and whose turn it is."""

import pytest
from support.database import Conn
from support.hands import Hand, completed, failed, hire, lose, submit
from support.tables import claim, one

from pgrun import PostgresDb


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
    hand = await hire(db, queues=["default", "other"])
    assert await hand.claim_woken() == []
    look = await hand.verbs.claim(hand.worker_id, ["default", "other"], [], 5, yields=False, horizon=10)
    assert look == ([], None, {"default"})


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
