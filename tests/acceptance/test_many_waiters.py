"""Ten thousand callers wait in one process: one connection listens for all of them, and few statements look."""

from typing import Any

import anyio
import pytest
from support.database import Conn
from support.hands import completed, hire
from support.until import until

from pgrun import PostgresDb
from pgrun.db._runtime import Runtime

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_WAITERS = 10_000


async def test_ten_thousand_waiters_share_one_listener(
    db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    looks = _count_looks(monkeypatch)
    conn.execute("insert into pgrun.jobs (kind, name) select 'task', 'noop' from generate_series(1, %s)", [_WAITERS])
    run_ids = [str(row["run_id"]) for row in conn.execute("select run_id from pgrun.jobs")]
    ended: list[str] = []

    async def wait(run_id: str) -> None:
        row = await db.wait_for(run_id, timeout=60)
        ended.append(str(row["run_id"]))

    async with anyio.create_task_group() as tasks:
        for run_id in run_ids:
            tasks.start_soon(wait, run_id)
        await until(lambda: sum(looks) >= _WAITERS)  # everyone has registered and looked once
        assert _listening(conn) == 1
        first_looks = len(looks)
        hand = await hire(db)
        while claimed := await hand.claim(200):
            await hand.verbs.finish([completed(run) for run in claimed])
    assert sorted(ended) == sorted(run_ids)
    assert len([name for name, _ in heard if name == "woken"]) == _WAITERS
    # At worst one look per notification of 200 ends, and a poll of everything now and then.
    assert len(looks) - first_looks < 200


def _count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each look asks for, as they are made."""
    looks: list[int] = []
    fetch = Runtime.fetch

    async def counting(self: Runtime, name: str, params: Any = None) -> Any:
        if name == "look_at_runs":
            looks.append(len(params["run_ids"]))
        return await fetch(self, name, params)

    monkeypatch.setattr(Runtime, "fetch", counting)
    return looks


def _listening(conn: Conn) -> int:
    """Connections of this process whose last statement was the listener's: its LISTENs, or the empty query of its ping."""
    row = conn.execute(
        "select count(*) as n from pg_stat_activity where application_name = 'pgrun' and datname = current_database() "
        "and (query ilike 'listen%' or query = '')"
    ).fetchone()
    assert row is not None
    return int(row["n"])
