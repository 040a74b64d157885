"""The events of a run as its rows have them, and pieces of text as a worker writes them."""

import json

from pgrun.db.records import Claimed, Told
from support.database import Conn
from support.hands import Hand
from support.rows import Row
from support.tables import perform


def stream(conn: Conn, run_id: str) -> list[Row]:
    """The events of a run; their numbers have no gap."""
    rows = conn.execute("select * from pgrun.events where run_id = %s order by seq", [run_id]).fetchall()
    assert [row["seq"] for row in rows] == [*range(1, len(rows) + 1)], rows
    return rows


def kinds(conn: Conn, run_id: str) -> list[str]:
    return [row["kind"] for row in stream(conn, run_id)]


def texts(conn: Conn, run_id: str) -> list[str]:
    return [row["data"]["text"] for row in stream(conn, run_id) if row["kind"] == "text"]


def told(claimed: Claimed, seq: int, *said: str) -> Told:
    """Pieces of text as a worker writes them."""
    events = json.dumps([["text", {"text": text}] for text in said])
    return Told(claimed.run_id, claimed.fence, seq, events.encode())


def write(conn: Conn, *events: Told) -> list[Row]:
    """Writes them on a plain connection."""
    runs = {each.run_id: {"fence": each.fence, "seq": each.seq, "events": json.loads(each.events)} for each in events}
    return perform(conn, "write_events", events=json.dumps(runs))


async def tell(hand: Hand, claimed: Claimed, *said: str) -> bool | None:
    """Writes pieces of text after what is there."""
    last = await hand.verbs.last_events([claimed.run_id])
    written = await hand.verbs.write_events([told(claimed, last[claimed.run_id] + 1, *said)])
    return written.get(claimed.run_id)
