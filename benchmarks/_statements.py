"""pgrun's own statements without its workers: what a bare loop needs to claim and finish no-ops."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

import psycopg

from pgrun.db.statements import statement

KEEP_PLANS, CLAIM, FINISH, SUBMIT_CALL, SUBMIT_CALLS = (
    statement(name, "pgrun").encode()
    for name in ("keep_plans", "claim_runs", "finish_runs", "submit_call", "submit_calls")
)
CALL = {"name": "noop", "queue": "default", "priority": 0, "delay": 0, "max_attempts": 5, "metadata": "{}"}
"""What all calls of `SUBMIT_CALL` and `SUBMIT_CALLS` have in common."""

_REGISTER = b"""
    insert into pgrun.workers (worker_id, mode, host, pid, version, queues, names, concurrency, lease, lease_until, awake_until)
    values (%s, 'daemon', 'here', 1, '0', '{default}', '{noop,stamp}', 1, '1 h', now() + interval '1 h',
            case when %s then now() + interval '1 h' end)"""


def register(url: str, *, awake: bool = False) -> str:
    """A row in the table of workers, and nobody behind it; its id."""
    worker_id = str(uuid4())
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_REGISTER, [worker_id, awake])
    return worker_id


def claim_params(worker_id: str, slots: int) -> dict[str, Any]:
    """The parameters of `CLAIM`, from the first run of the queue default."""
    begin = {"from_priorities": [-32768], "from_dues": [float("-inf")]}
    look = {"queues": ["default"], "names": ["noop"], "slots": slots, "yields": False, "horizon": 0}
    return {"worker_id": worker_id, **begin, **look}


def finish_params(claimed: Iterable[Sequence[Any]]) -> dict[str, str]:
    """The parameters of `FINISH`, for the rows of a claim."""
    endings = (f'"{row[1]}":{{"fence":{row[9]},"status":"completed","output":1}}' for row in claimed)
    return {"endings": f"{{{','.join(endings)}}}"}
