"""Sessions before jobs, and whoever must take them the other way round yields: nobody ever ends in a deadlock."""

import json
import random
from collections import Counter
from collections.abc import Callable
from threading import Barrier
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import DeadlockDetected
from support.crew import crew
from support.database import Conn
from support.hands import hire
from support.rows import Row
from support.tables import claim, claim_limited, finish, one, perform

from pgrun import PostgresDb
from pgrun._ids import new_run_id

THREADS = 8
STEPS = 400
SESSIONS = ("a", "b", "c", "")  # "" is none
WAITS = {"kind": "confirmation", "step": 2, "call_id": "call_1", "name": "refund", "arguments": {}}


class Someone:
    """A session of the database that does all that may be done to runs, in no order; a worker too."""

    def __init__(self, conn: Conn, worker_id: str, seed: int) -> None:
        self._conn = conn
        self._worker_id = worker_id
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def do_something(self) -> None:
        steps: tuple[Callable[[], object], ...] = (
            *(self.submit, self.submit, self.submit, self.end_some, self.end_some, self.end_some),
            *(self.end_in_a_batch, self.cancel, self.cancel, self.retry_ended, self.retry_ended, self.delete),
            *(self.try_again, self.give_back, self.rescue, self.die_and_come_back, self.open_sessions, self.leave),
            *(self.prune, self.forget_workers, self.pause, self.pause, self.approve, self.approve),
            *(self.watch, self.watch, self.tell, self.tell, self.prune_events, self.change_state),
            *(self.submit_under_keys, self.submit_under_keys, self.expire),
            *(self.set_queue, self.pause_queue, self.resume_queue),
            *(self.retry_failed, self.retry_failed, self.say_progress, self.sleep),
            *(self.fire, self.fire, self.schedule),
        )
        step = self._random.choice(steps)
        try:
            step()
        except psycopg.ProgrammingError as error:
            if error.sqlstate not in ("PGR01", "PGR02", "PGR03"):  # deleted meanwhile; runs, or has completed; busy
                raise
        self.done[step.__name__] += 1

    def submit(self) -> None:
        perform(
            self._conn,
            "submit_run",
            **{"run_id": new_run_id(), "kind": "task", "name": "noop", "queue": "default", "input": "{}"},
            **{"session_id": self._random.choice(SESSIONS), "session_table": "", "parent_run_id": "", "priority": 0},
            multitask=self._random.choice(["", "", "", "interrupt", "rollback", "reject", "parallel"]),
            **{
                "delay": 0,
                "max_attempts": 2,
                "definition": "",
                "output_schema": "",
                "content_type": "",
                "metadata": "{}",
                "streams": self._random.random() < 0.5,
                "context": "",
                "concurrency_key": self._random.choice(["", "", "a", "b"]),
                "weight": "",
            },
        )

    def submit_under_keys(self) -> None:
        keys = self._random.sample("abcdefgh", 4)
        session = {"session_id": session_id} if (session_id := self._random.choice(SESSIONS)) else {}
        common = {"kind": "task", "name": "noop", "max_attempts": 2, "expires": 0.05, **session}
        common["key_scope"] = self._random.choice(["pending", "unfinished"])
        common["on_duplicate"] = self._random.choice(["keep", "replace"])
        params = {"run_ids": [new_run_id() for _ in keys], "keys": keys, "inputs": "[1, 2, 3, 4]"}
        perform(self._conn, "submit_runs", common=json.dumps(common), **params)

    def expire(self) -> None:
        perform(self._conn, "expire_runs")

    def schedule(self) -> None:
        name, options = self._random.choice("xy"), json.dumps({"session_id": self._random.choice("ab")})
        when = {"cron": "", "every": "0.1", "at": "", "timezone": "UTC", "missed": "all"}
        what = {"name": "noop", "input": "{}", "queue": "default", "options": options}
        perform(self._conn, "set_schedule", schedule=name, **what, **when)
        if self._random.random() < 0.3:
            self._conn.execute("update pgrun.schedules set paused_at = case when paused_at is null then now() end")

    def fire(self) -> None:
        for row in perform(self._conn, "look_at_schedules", most=10):
            next_at = row["now"].isoformat()  # which is due at once
            tick = {"schedule": row["schedule"], "changed_at": row["changed_at"], "next_at": next_at}
            if row["schedule"] and row["next_at"]:
                perform(
                    self._conn, "fire_schedule", **tick, expected=row["next_at"].isoformat(), ticks=[row["next_at"]]
                )
            elif row["schedule"]:
                perform(self._conn, "plan_schedule", **tick, expected="", error="")

    def end_some(self) -> None:
        for row in self._claim():
            finish(self._conn, row["run_id"], row["fence"], self._random.choice(["completed", "error", "cancelled"]))

    def end_in_a_batch(self) -> None:
        claimed = self._claim()
        with self._conn.transaction():  # longer than one statement: whoever ends runs keeps several sessions
            for row in claimed:
                finish(self._conn, row["run_id"], row["fence"])

    def set_queue(self) -> None:
        limits = {"concurrency": self._random.choice([None, 10]), "rate": self._random.choice([None, 1000])}
        perform(self._conn, "set_queue", queue="default", limits=json.dumps(limits | {"key_concurrency": 5}))

    def pause_queue(self) -> None:
        perform(self._conn, "pause_queue", queue="default", seconds="0.01")

    def resume_queue(self) -> None:
        perform(self._conn, "resume_queue", queue="default")

    def cancel(self) -> None:
        perform(self._conn, "cancel_run", run_id=self._any_run())

    def retry_ended(self) -> None:
        perform(self._conn, "retry_ended_run", run_id=self._any_run())

    def delete(self) -> None:
        self._conn.execute("delete from pgrun.jobs where run_id = %s", [self._any_run()])

    def try_again(self) -> None:
        for row in self._claim():
            perform(
                self._conn,
                "retry_run",
                run_id=row["run_id"],
                fence=row["fence"],
                delay=0,
                error="{}",
                metrics="{}",
                keeps_call=True,
            )

    def retry_failed(self) -> None:
        which = {"queue": "", "name": "", "error_type": "", "since": "", "until": ""}
        perform(self._conn, "retry_failed", **which, batch=self._random.randint(1, 5))

    def say_progress(self) -> None:
        said = {str(row["run_id"]): {"fence": row["fence"], "progress": {"fraction": 1}} for row in self._claim()}
        perform(self._conn, "write_progress", progress=json.dumps(said))

    def sleep(self) -> None:
        for row in self._claim():
            step = {"number": 2, "name": "sleep", "seconds": 1}
            perform(self._conn, "record_sleep", run_id=row["run_id"], fence=row["fence"], **step)

    def change_state(self) -> None:
        """As a tool does; the run goes on."""
        for row in self._claim():
            step = {"number": 1, "kind": "state", "name": "x", "data": "{}", "duration": 0, "metrics": ""}
            changes = json.dumps([{"path": ["x"], "op": "add", "value": 1}])
            perform(self._conn, "record_changes", run_id=row["run_id"], fence=row["fence"], **step, changes=changes)

    def give_back(self) -> None:
        claimed = self._claim()
        run_ids, fences = [row["run_id"] for row in claimed], [row["fence"] for row in claimed]
        kept = {"error": "", "metrics": "", "keeps_call": True, "parks": False}
        perform(self._conn, "release_runs", run_ids=run_ids, fences=fences, delay=0, **kept)

    def rescue(self) -> None:
        perform(self._conn, "rescue_runs", worker_id=self._worker_id)

    def die_and_come_back(self) -> None:
        self._claim()
        self._conn.execute(
            "update pgrun.workers set lease_until = now(), lease = '0' where worker_id = %s", [self._worker_id]
        )
        self.rescue()
        perform(self._conn, "beat_worker", worker_id=self._worker_id, draining=False, blocked=0)
        self._conn.execute(
            "update pgrun.workers set stopped_at = null, lease_until = now() + interval '1 h' where worker_id = %s",
            [self._worker_id],
        )

    def open_sessions(self) -> None:
        perform(self._conn, "open_sessions")

    def prune(self) -> None:
        perform(
            self._conn,
            "prune_runs",
            older_than=0,
            status="",
            queue="",
            name="",
            batch=self._random.randint(1, 4),
            after="",
        )

    def pause(self) -> None:
        for row in self._claim():
            held = {"run_id": row["run_id"], "fence": row["fence"], "holds_session": self._random.random() < 0.5}
            perform(self._conn, "pause_run", **held, requirements=json.dumps([WAITS]), metrics="", tools="")

    def approve(self) -> None:
        perform(self._conn, "approve_run", run_id=self._any_run("paused"), decision="{}")

    def watch(self) -> None:
        perform(self._conn, "watch_run", run_id=self._any_run())

    def tell(self) -> None:
        claimed = {str(row["run_id"]): row["fence"] for row in self._claim()}
        last = {row["run_id"]: row["last"] for row in perform(self._conn, "find_last_events", run_ids=[*claimed])}
        told = {
            run_id: {"fence": fence, "seq": last[run_id] + 1, "events": [["text", {"text": "so"}]] * 2}
            for run_id, fence in claimed.items()
        }
        if self._random.random() < 0.5:
            perform(self._conn, "write_events", events=json.dumps(told))
            perform(self._conn, "write_events", events=json.dumps(told))  # once more, perhaps later than others end it
        for run_id, fence in claimed.items():
            finish(self._conn, run_id, fence)

    def prune_events(self) -> None:
        perform(self._conn, "prune_events", older_than=0, batch=self._random.randint(1, 4))

    def forget_workers(self) -> None:
        perform(self._conn, "forget_workers")

    def leave(self) -> None:
        self._claim()
        perform(self._conn, "stop_worker", worker_id=self._worker_id)
        self._conn.execute("update pgrun.workers set stopped_at = null where worker_id = %s", [self._worker_id])

    def _claim(self) -> list[Row]:
        slots = self._random.randint(1, 4)
        return claim(self._conn, self._worker_id, slots=slots) or claim_limited(
            self._conn, self._worker_id, slots=slots
        )

    def _any_run(self, status: str = "") -> str:
        query = "select run_id from pgrun.jobs order by status = %s desc, finished_at is null desc, random() limit 1"
        row = self._conn.execute(query, [status]).fetchone()
        return str(row["run_id"]) if row else new_run_id()


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_no_mixture_of_statements_ends_in_a_deadlock(db: PostgresDb, conn: Conn, dsn: str) -> None:
    workers = [(await hire(db)).worker_id for _ in range(THREADS)]
    together = Barrier(THREADS, timeout=30)
    seed = random.randrange(10**9)

    def act(own: Conn, number: int) -> Counter[str]:
        someone = Someone(own, workers[number], seed + number)
        together.wait()
        for _ in range(STEPS):
            try:
                someone.do_something()
            except DeadlockDetected as error:
                raise AssertionError(
                    f"seed {seed + number} after {someone.done}: {error.diag.message_detail}"
                ) from error
        return someone.done

    with crew(dsn) as threads:
        done: Counter[str] = sum(
            (thread.result() for thread in [threads.start(act, n) for n in range(THREADS)]), Counter()
        )
    assert done.total() == THREADS * STEPS

    # No stream has a gap, and the last event of what has ended is its end.
    assert (
        one(conn, "select count(*) from (select from pgrun.events group by run_id having max(seq) <> count(*)) gaps")
        == 0
    )
    ends = """select count(*), count(*) filter (where e.kind = j.status) as told
                from pgrun.jobs j join lateral (
                     select kind from pgrun.events e where e.run_id = j.run_id order by seq desc limit 1) e on true
               where j.finished_at is not null and j.streams"""
    ended = conn.execute(ends.encode()).fetchone()
    assert ended
    assert ended["count"] == ended["told"]

    # Nor is anything stuck: what is open may start once open_sessions has been called, and can be worked off.
    for row in conn.execute("select run_id from pgrun.jobs where status = 'paused'").fetchall():
        perform(conn, "approve_run", run_id=row["run_id"], decision="{}")
    conn.execute("update pgrun.jobs set status = 'pending', attempt = 0 where status = 'running'")
    conn.execute("update pgrun.jobs set expires_at = null where finished_at is null")
    conn.execute("update pgrun.queues set concurrency = null, key_concurrency = null, rate = null, paused_at = null")
    last = (await hire(db)).worker_id
    while one(conn, "select count(*) from pgrun.jobs where finished_at is null"):
        perform(conn, "open_sessions")
        claimed = claim(conn, last, slots=100) or claim_limited(conn, last, slots=100)
        assert claimed
        parallel = {row["run_id"] for row in conn.execute("select run_id from pgrun.jobs where multitask = 'parallel'")}
        in_sessions = [
            row["session_id"] for row in claimed if row["session_id"] and UUID(row["run_id"]) not in parallel
        ]
        assert len(in_sessions) == len({*in_sessions})
        for row in claimed:
            assert finish(conn, row["run_id"], row["fence"])


async def test_two_batches_that_end_runs_of_the_same_sessions_in_opposite_order_both_succeed(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    """Each holds the session the other wants; both give up on it and write all the same."""
    hand = await hire(db)
    conn.execute(
        "insert into pgrun.jobs (name, session_id) values ('noop', 'a'), ('noop', 'b'), ('noop', 'a'), ('noop', 'b')"
    )
    first = {run.session_id: run for run in await hand.claim()}
    conn.execute("update pgrun.jobs set held = null where held is not null")  # as if the rule were broken
    second = {run.session_id: run for run in await hand.claim()}
    together = Barrier(2, timeout=10)

    def end(own: Conn, *claimed: tuple[str, int]) -> bool:
        with own.transaction():
            accepted = finish(own, *claimed[0])
            together.wait()
            return finish(own, *claimed[1]) and accepted

    with crew(dsn) as threads:
        one_way = threads.start(end, *[(first[name].run_id, first[name].fence) for name in "ab"])
        other_way = threads.start(end, *[(second[name].run_id, second[name].fence) for name in "ba"])
        assert one_way.result()
        assert other_way.result()
    assert one(conn, "select array_agg(distinct status) from pgrun.jobs") == ["completed"]
