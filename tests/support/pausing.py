"""Runs that wait for a person, as statements make them, and what a person in psql says."""

from typing import Any

from pgrun import PostgresDb
from pgrun.db.records import Claimed
from support.database import Conn
from support.hands import Hand, hire, submit
from support.rows import row_of
from support.tables import one

REFUND: dict[str, Any] = {
    **{"kind": "confirmation", "step": 2, "call_id": "call_1", "name": "refund"},
    "arguments": {"order": 7},
}
SHIP = {**REFUND, "step": 3, "call_id": "call_2", "name": "ship"}


async def paused(
    db: PostgresDb, *requirements: dict[str, Any], holds_session: bool = True, **columns: Any
) -> tuple[Hand, Claimed]:
    """A run that waits for a person."""
    await submit(db, **columns)
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await pause(hand, claimed, *requirements, holds_session=holds_session) == "paused"
    return hand, claimed


async def pause(hand: Hand, claimed: Claimed, *requirements: dict[str, Any], holds_session: bool = True) -> str | None:
    return await hand.verbs.pause(
        claimed, [*(requirements or [REFUND])], holds_session=holds_session, metrics={"total_tokens": 7}, tools=None
    )


def approve(conn: Conn, run_id: str, arguments: str = "", *params: Any) -> str:
    return str(one(conn, f"select pgrun.approve(%s{arguments})", run_id, *params))


def decided(conn: Conn, run_id: str) -> list[dict[str, Any]]:
    """What was decided on, without what is said of the calls and when that was."""
    told = row_of(conn, run_id)["requirements"]
    return [{key: each[key] for key in ("approved", "note", "result", "input") if key in each} for each in told]
