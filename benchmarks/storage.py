"""What fillfactor and autovacuum settings of pgrun.jobs do: rate of claims and finishes, and the space that is left behind.

    python benchmarks/storage.py [--runs 200000] [--rounds 3] [--json FILE] [--database-url URL]

Per round and setting, in a new database: runs are submitted, claimed and finished in batches of 500 by the statements themselves,
one batch after the other, while autovacuum looks every second. With `--database-url` it looks as often as that server lets it.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg
from _bench import database, parser, server
from _figures import medians, table, write
from _statements import CALL, CLAIM, FINISH, KEEP_PLANS, SUBMIT_CALLS, claim_params, finish_params, register

from pgrun._ids import new_run_ids

BATCH = 500
SETTINGS = {
    "as it is": "",
    "Postgres's own": "alter table pgrun.jobs reset (vacuum_index_cleanup, autovacuum_vacuum_threshold,"
    " autovacuum_vacuum_scale_factor)",
    "fillfactor 90": "alter table pgrun.jobs set (fillfactor = 90)",
    "fillfactor 70": "alter table pgrun.jobs set (fillfactor = 70)",
    "fillfactor 50": "alter table pgrun.jobs set (fillfactor = 50)",
    "no autovacuum": "alter table pgrun.jobs set (autovacuum_enabled = off)",
    "vacuum at 1 %": "alter table pgrun.jobs set (autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0.01)",
    "unthrottled": "alter table pgrun.jobs set (autovacuum_vacuum_cost_delay = 0)",
}
SIZES = """
    select pg_table_size('pgrun.jobs') / 1e6 as "table MB",
           (select pg_relation_size('pgrun.jobs_due') / 1e6) as "jobs_due MB",
           pg_indexes_size('pgrun.jobs') / 1e6 as "indexes MB"
"""


def pass_through(url: str, setting: str, runs: int) -> dict[str, float]:
    """Rates in runs per second, and sizes at the end."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as conn:
        conn.execute(KEEP_PLANS)
        if setting:
            conn.execute(setting.encode())
        look = claim_params(register(url), BATCH)
        took = [_one_batch(conn, look) for _ in range(runs // BATCH)]
        last = took[-len(took) // 5 :]
        row = conn.execute(SIZES.encode()).fetchone()
        assert row is not None
        return {
            "runs/s": BATCH * len(took) / sum(took),
            "last fifth": BATCH * len(last) / sum(last),
            **dict(zip(("table MB", "jobs_due MB", "indexes MB"), map(float, row), strict=True)),
        }


def _one_batch(conn: psycopg.Connection, look: Mapping[str, Any]) -> float:
    inputs = json.dumps([{"text": "x" * 180, "number": number} for number in range(BATCH)])
    began = time.monotonic()
    given = {
        "run_ids": new_run_ids(BATCH),
        "inputs": inputs,
        "session_id": None,
        "concurrency_key": None,
        "weight": None,
    }
    conn.execute(SUBMIT_CALLS, {**CALL, **given})
    claimed = conn.execute(CLAIM, look).fetchall()
    assert len(claimed) == BATCH
    conn.execute(FINISH, finish_params(claimed))
    return time.monotonic() - began


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=200_000)
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    with server(options.database_url) as on:
        with suppress(psycopg.errors.InsufficientPrivilege), psycopg.connect(on, autocommit=True) as conn:
            if not options.database_url:
                conn.execute("alter system set autovacuum_naptime = '1s'")
                conn.execute("select pg_reload_conf()")
        for _ in range(options.rounds):
            for name, setting in SETTINGS.items():
                with database(on) as url:
                    found[name].append(pass_through(url, setting, options.runs))
        figures = {name: medians(rounds) for name, rounds in found.items()}
        columns = [*figures["as it is"]]
        table(["setting", *columns], {name: [row[column] for column in columns] for name, row in figures.items()})
        write(options.json, on, {"runs": options.runs, "rounds": options.rounds, "settings": figures})


if __name__ == "__main__":
    main()
