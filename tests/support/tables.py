"""Looks at tables, and the statement files on plain connections."""

import json
import re
from collections.abc import Sequence
from typing import Any

from pgrun.db.statements import statement
from support.database import Conn
from support.rows import Row, row_of


def status(conn: Conn, run_id: str) -> str:
    return str(row_of(conn, run_id)["status"])


def one(conn: Conn, query: str, *params: Any) -> Any:
    """The only column of the only row."""
    rows = conn.execute(query.encode(), params or None).fetchall()
    assert len(rows) == 1, rows
    assert len(rows[0]) == 1, rows
    return next(iter(rows[0].values()))


def perform(conn: Conn, name: str, /, **params: Any) -> list[Row]:
    """Executes ``sql/queries/<name>.sql`` once, without the repeats and translations of the runtime."""
    cursor = conn.execute(statement(name, "pgrun").encode(), params, prepare=False)
    return cursor.fetchall() if cursor.description else []


def claim(conn: Conn, worker_id: str, *, slots: int = 1, queues: Sequence[str] = ("default",)) -> list[Row]:
    """Claims from the first run of each queue on."""
    begin = {"from_priorities": [-32768] * len(queues), "from_dues": [float("-inf")] * len(queues)}
    look = {"names": [], "slots": slots, "yields": False, "horizon": 0}
    rows = perform(conn, "claim_runs", worker_id=worker_id, queues=[*queues], **begin, **look)
    return [row for row in rows if row["run_id"]]


def claim_limited(conn: Conn, worker_id: str, *, slots: int = 1, queue: str = "default") -> list[Row]:
    """Claims from a queue with limits or keys."""
    look = {"queue": queue, "names": [], "slots": slots, "yields": False}
    return [row for row in perform(conn, "claim_limited", worker_id=worker_id, **look) if row["run_id"]]


def finish(conn: Conn, run_id: str, fence: int, status: str = "completed") -> bool:
    """Ends one run; whether that was accepted."""
    ending: dict[str, Any] = {"fence": fence, "status": status}
    match status:
        case "completed":
            ending["output"] = "done"
        case "error":
            ending["error"] = {"message": "broke"}
    endings = json.dumps({str(run_id): ending})
    return bool(perform(conn, "finish_runs", endings=endings) or perform(conn, "find_endings", endings=endings))


def parameters_of(sql: str) -> tuple[str, list[str]]:
    """A statement as the server knows it, with $1, and the names of its parameters in that order."""
    order: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in order:
            order.append(match[1])
        return f"${order.index(match[1]) + 1}"

    return re.sub(r"%\((\w+)\)s", number, sql).replace("%%", "%"), order
