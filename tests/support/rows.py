"""What a person in psql would look up: runs, their steps, workers, and the database's clock."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from support.database import Conn
from support.until import until

Row = dict[str, Any]


def row_of(conn: Conn, run_id: str) -> Row:
    """The whole row of a run."""
    row = conn.execute("select * from pgrun.jobs where run_id = %s", [run_id]).fetchone()
    assert row is not None
    return row


def rows_of(conn: Conn, run_ids: Sequence[str]) -> list[Row]:
    """The rows of some runs, in this order."""
    found = conn.execute("select * from pgrun.jobs where run_id = any (%s::uuid[])", [[*run_ids]]).fetchall()
    rows = {str(row["run_id"]): row for row in found}
    return [rows[run_id] for run_id in run_ids]


def steps_of(conn: Conn, run_id: str) -> list[Row]:
    """The recorded steps of a run, in their order."""
    return conn.execute("select * from pgrun.steps where run_id = %s order by step", [run_id]).fetchall()


async def until_all(conn: Conn, status: str, run_ids: Sequence[str], *, within: float = 10.0) -> list[Row]:
    """The rows of some runs as soon as all of them have this status."""

    def rows() -> list[Row]:
        found = rows_of(conn, run_ids)
        return found if all(row["status"] == status for row in found) else []

    return await until(rows, within=within, shown=f"{status} of {run_ids}")


def clock(conn: Conn) -> datetime:
    """The database's clock."""
    row = conn.execute("select clock_timestamp() as now").fetchone()
    assert row is not None
    return row["now"]  # type: ignore[no-any-return]


def workers_of(conn: Conn, pid: int) -> list[Row]:
    """The workers that a process has been, the oldest first."""
    return conn.execute("select * from pgrun.worker_status where pid = %s order by started_at", [pid]).fetchall()
