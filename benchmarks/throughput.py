"""How fast one worker process drains no-op tasks, beside the ceiling: its own statements in a bare loop without any handler.

    python benchmarks/throughput.py [--runs 20000] [--rounds 5] [--concurrency 1000] [--json FILE] [--database-url URL]

Per round, in new databases: a bulk submit and the bare statement for it; single submits one after the other and a bare INSERT of
the same row by the same driver; a drain by a `Worker`; and the ceiling of a drain, claim and finish in batches of 500 on one
connection. Medians, and the ratio of each to its bare form.
"""

import json
import time

import anyio
import psycopg
from _bench import database, parser, server, settle
from _figures import medians, table, write
from _load import drain
from _statements import CLAIM, FINISH, KEEP_PLANS, claim_params, finish_params, register
from _tasks import noop

from pgrun import PostgresDb
from pgrun._ids import new_run_id

SINGLE = 1000
BULK = """insert into pgrun.jobs (run_id, kind, name, input)
          select r, 'task', 'noop', i::jsonb from unnest(%s::uuid[], %s::text[]) as u (r, i)"""
INSERT = "insert into pgrun.jobs (run_id, kind, name, input) values (%s, 'task', 'noop', %s)"
BATCH = 500


async def with_pgrun(url: str, runs: int, concurrency: int) -> dict[str, float]:
    """Rates of a client and of a worker."""
    async with PostgresDb(url, worker="external") as db:
        task = db.task(noop)
        await task.asubmit_many([{"number": number} for number in range(100)])
        began = time.monotonic()
        await task.asubmit_many([{"number": number} for number in range(runs)])
        bulk = runs / (time.monotonic() - began)
        began = time.monotonic()
        for number in range(SINGLE):
            await task.asubmit(number)
        single = SINGLE / (time.monotonic() - began)
    settle(url)
    drained = await drain(url, runs + SINGLE + 100, concurrency=concurrency)
    return {"bulk submit": bulk, "single submit": single, "drain": drained.rate}


async def bare(url: str, runs: int) -> dict[str, float]:
    """Rates of the statements alone, by the same driver."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0) as conn:
        ids, inputs = [new_run_id() for _ in range(runs)], [json.dumps({"number": number}) for number in range(runs)]
        await conn.execute(KEEP_PLANS)
        await conn.execute("alter table pgrun.jobs disable trigger jobs_wake")
        began = time.monotonic()
        await conn.execute(BULK.encode(), [ids, inputs])
        bulk = runs / (time.monotonic() - began)
        began = time.monotonic()
        for _ in range(SINGLE):
            await conn.execute(INSERT.encode(), [new_run_id(), '{"number": 1}'])
        single = SINGLE / (time.monotonic() - began)
        settle(url)
        drained = await _drain(conn, register(url), runs + SINGLE)
        return {"bulk submit": bulk, "single submit": single, "drain": drained}


async def _drain(conn: psycopg.AsyncConnection, worker_id: str, runs: int) -> float:
    look = claim_params(worker_id, BATCH)
    began = time.monotonic()
    for _ in range(-(-runs // BATCH)):
        claimed = await (await conn.execute(CLAIM, look)).fetchall()
        await conn.execute(FINISH, finish_params(claimed))
    drained = runs / (time.monotonic() - began)
    left = await (await conn.execute("select count(*) from pgrun.jobs where finished_at is null")).fetchone()
    assert left == (0,), left
    return drained


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=20_000)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--concurrency", type=int, default=1000)
    options = made.parse_args()
    ours: list[dict[str, float]] = []
    alone: list[dict[str, float]] = []
    with server(options.database_url) as on:
        for _ in range(options.rounds):
            with database(on) as url:
                ours.append(anyio.run(with_pgrun, url, options.runs, options.concurrency))
            with database(on) as url:
                alone.append(anyio.run(bare, url, options.runs))
        figures, ceiling = medians(ours), medians(alone)
        table(
            ["runs per second", "pgrun", "bare", "ratio"],
            {name: [rate, ceiling[name], rate / ceiling[name]] for name, rate in figures.items()},
        )
        write(options.json, on, {"runs": options.runs, "rounds": options.rounds, "pgrun": figures, "bare": ceiling})


if __name__ == "__main__":
    main()
