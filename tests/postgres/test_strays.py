"""find_strays.sql: runs that a worker holds in the database, though perhaps it never heard of them."""

from support.database import Conn
from support.hands import hire, submit

from pgrun import PostgresDb


async def test_claims_older_than_asked_for_are_found_with_their_fence(db: PostgresDb, conn: Conn) -> None:
    old, fresh = await submit(db, priority=0), await submit(db, priority=1)
    hand = await hire(db)
    fences = {run.run_id: run.fence for run in await hand.claim()}
    conn.execute("update pgrun.jobs set started_at = now() - interval '10 s' where run_id = %s", [old])
    assert await hand.verbs.strays(hand.worker_id, older_than=5) == [(old, fences[old])]
    assert {run_id for run_id, _ in await hand.verbs.strays(hand.worker_id, older_than=-5)} == {old, fresh}


async def test_neither_those_of_others_nor_ended_ones_are_found(db: PostgresDb, conn: Conn) -> None:
    hand, other = await hire(db), await hire(db)
    await submit(db)
    await hand.complete(await hand.claim_one())
    await submit(db)
    await other.claim_one()
    conn.execute("update pgrun.jobs set started_at = now() - interval '1 h'")
    assert await hand.verbs.strays(hand.worker_id, older_than=5) == []


async def test_what_is_found_can_be_given_back(db: PostgresDb, conn: Conn) -> None:
    """What a worker does when the answer of a claim was lost with the connection."""
    run_id = await submit(db)
    hand = await hire(db)
    await hand.claim_one()
    assert await hand.verbs.release(await hand.verbs.strays(hand.worker_id, older_than=-5)) == {run_id}
    assert (await hand.claim_one()).attempt == 1
