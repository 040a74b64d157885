"""Everything at once: whatever happens to workers, each run ends once, in its place, and nobody waits for ever."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from support.agents import answering_agent
from support.database import Conn
from support.netfault import Proxy
from support.processes import Processes
from support.settings import FAST
from support.storm import Plan, Storm

from pgrun import PostgresDb
from pgrun.testing import ModelServer

pytestmark = pytest.mark.slow

Row = dict[str, Any]

# The database itself keeps the record of every change of status; nothing that workers say of themselves is believed. Nor are
# started_at and finished_at: a transaction's clock stands still while it waits and plans.
RECORD = """
create table public.record (
    number bigint generated always as identity, run_id text, session_id text, before text, after text);
create function public.note() returns trigger language plpgsql as $$
begin
    insert into public.record (run_id, session_id, before, after)
    values (new.run_id, new.session_id, old.status, new.status);
    return null;
end $$;
create trigger note after update on pgrun.jobs
    for each row when (old.status <> new.status) execute function public.note();
"""
FINAL = ("completed", "error", "cancelled")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", [1])
async def test_a_short_storm_is_weathered(
    seed: int, db: PostgresDb, dsn: str, conn: Conn, models: ModelServer, proxy: Proxy, processes: Processes
) -> None:
    await weather(Plan(seed, runs=220, seconds=6, lease=2), db, dsn, conn, models, proxy, processes)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2, 7))
async def test_a_long_storm_is_weathered(
    seed: int, db: PostgresDb, dsn: str, conn: Conn, models: ModelServer, proxy: Proxy, processes: Processes
) -> None:
    await weather(Plan(seed, runs=3000, seconds=60, lease=3), db, dsn, conn, models, proxy, processes)


async def weather(
    plan: Plan,
    db: PostgresDb,
    dsn: str,
    conn: Conn,
    models: ModelServer,
    proxy: Proxy,
    processes: Processes,
) -> None:
    conn.execute(RECORD)
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as cut_off:
        storm = Storm(plan, answering_agent(db, models), dsn=dsn, cut_off=cut_off, proxy=proxy, processes=processes)
        models.always(storm.answer)
        await storm.rage()
    rows = conn.execute("select *, run_id::text as id from pgrun.jobs").fetchall()
    record = conn.execute("select * from public.record order by number").fetchall()
    calls = Counter(call.text for call in models.calls)
    assert {row["id"]: text_of(row) for row in rows} == storm.texts
    assert {row["kind"] for row in rows} == {"agent", "task"}
    assert storm.answers.keys() == storm.texts.keys()
    for row in rows:
        assert_ended_well(row, calls[text_of(row)], storm)
    for changes in grouped(record, "run_id"):
        assert_ended_once(changes)
    for changes in grouped(record, "session_id"):
        assert_one_at_a_time(changes)
    for session in grouped([row for row in rows if row["id"] not in storm.retried], "session_id"):
        assert_in_order(session, record)


def text_of(row: Row) -> str:
    """What was asked: the input of an agent's run, an argument of a task's."""
    text = row["input"] if row["kind"] == "agent" else row["input"]["text"]
    return str(text)


def assert_ended_well(row: Row, calls: int, storm: Storm) -> None:
    answer = f"answer to {text_of(row)}"
    assert row["status"] in ("completed", "cancelled"), row
    assert row["output"] == (answer if row["status"] == "completed" else None)
    assert calls <= row["fence"], "the model was asked more often than the run was claimed"
    assert storm.answers[row["id"]] in (answer, "RunCancelled")
    if row["id"] not in storm.retried:
        assert (storm.answers[row["id"]] == answer) == (row["status"] == "completed")
    if row["status"] == "completed" and row["fence"] == 1:
        assert calls == (row["kind"] == "agent")


def assert_ended_once(changes: list[Row]) -> None:
    """Once, and once more after each time that a person made it due again."""
    ends = [change["after"] in FINAL for change in changes if (change["before"] in FINAL) != (change["after"] in FINAL)]
    assert ends == [number % 2 == 0 for number in range(len(ends))], changes
    assert ends[-1], changes


def assert_one_at_a_time(changes: list[Row]) -> None:
    """From its first start to its end nothing else of its session starts."""
    current: str | None = None
    for change in changes:
        if change["after"] == "running":
            assert current in (None, change["run_id"]), changes
            current = change["run_id"]
        elif change["after"] in FINAL and current == change["run_id"]:
            current = None


def assert_in_order(session: list[Row], record: list[Row]) -> None:
    """Those that ran began in the order of submission."""
    places = {row["id"]: row["session_seq"] for row in session}
    started = [change["run_id"] for change in record if change["after"] == "running" and change["run_id"] in places]
    seen = [places[run_id] for run_id in dict.fromkeys(started)]
    assert seen == sorted(seen)


def grouped(rows: list[Row], column: str) -> list[list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        if row[column] is not None:  # a task need not have a session
            groups[row[column]].append(row)
    return [*groups.values()]
