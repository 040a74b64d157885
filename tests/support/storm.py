"""A storm: runs of an agent and a task in mixed sessions while workers are killed, stopped, cancelled and cut off at random.

They are submitted one by one, in bursts, many in a statement, and by transactions of others that commit late or never.

What happens is drawn from a seed; when it happens depends on the machine, so a seed repeats the plan and not the run.
"""

import random
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import psycopg
from anyio.abc import TaskGroup
from psycopg.types.json import Jsonb

from pgrun import Agent, DatabaseUnavailable, PostgresDb, Run, RunCancelled, RunFailed, RunOutput, UsageError, Worker
from pgrun._ids import new_run_id
from pgrun.run.options import RunOptions
from pgrun.testing import Answer, reply, server_error
from support.netfault import Proxy
from support.processes import Processes
from support.storm_tasks import declare


@dataclass(frozen=True)
class Plan:
    """How much happens, in how many seconds."""

    seed: int
    runs: int
    seconds: float
    lease: float


class Storm:
    """One storm over one database.

    Args:
        plan: What is to happen.
        agent: Whose runs they are; its `db` is a way to the database that is never cut.
        dsn: The same way, for transactions of others.
        cut_off: Another way there, through `proxy`, which is cut.
        proxy: The network that fails.
        processes: Starts workers.

    Attributes:
        texts: The text of each run that was submitted, by run_id.
        answers: What callers got: the answer, or the name of the error; each was asked for once.
        retried: Runs that a person made due again, or was about to.
    """

    def __init__(
        self, plan: Plan, agent: Agent[str], *, dsn: str, cut_off: PostgresDb, proxy: Proxy, processes: Processes
    ) -> None:
        assert agent.db is not None
        self._plan = plan
        self._agent = agent
        self._db = agent.db
        self._dsn = dsn
        self._task = declare(agent.db)
        self._cut_off = cut_off
        self._proxy = proxy
        self._processes = processes
        self._chance = random.Random(plan.seed)
        self.texts: dict[str, str] = {}
        self.answers: dict[str, str] = {}
        self.retried: set[str] = set()

    def answer(self, body: dict[str, Any]) -> Answer:
        """What the model says: usually the right thing, soon."""
        if self._chance.random() < 0.05:
            return server_error()
        return reply(f"answer to {body['input'][-1]['content']}", delay=self._chance.uniform(0.001, 0.06))

    async def rage(self) -> None:
        """Lets everything happen, then one worker in peace finish what is left; ends when every caller has its answer."""
        async with anyio.create_task_group() as callers:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._submit_all, callers)
                tasks.start_soon(self._submit_late, callers)
                with anyio.move_on_after(self._plan.seconds):
                    async with anyio.create_task_group() as dangers:
                        for db in (self._db, self._db, self._cut_off):
                            dangers.start_soon(self._work_in_danger, db)
                        for _ in range(2):
                            dangers.start_soon(self._endanger_a_process)
                        for danger in (self._cut_the_network, self._cancel_some, self._retry_some):
                            dangers.start_soon(danger)
            async with Worker(self._db, concurrency=20):
                await self._db.await_runs([*self.texts], timeout=60)

    async def _submit_all(self, callers: TaskGroup) -> None:
        for number in range(self._plan.runs):
            run_id, text = new_run_id(), f"run {number}"
            session_id = f"session {self._chance.randrange(8)}" if self._chance.random() < 0.6 else None
            options: RunOptions = {"run_id": run_id, "max_attempts": 100, "session_id": session_id}
            run: Run[str] | RunOutput[str]
            if number % 3 == 0:
                run = await self._task.options(**options).asubmit(text)
            else:
                run = await self._agent.arun(text, background=True, **options)
            self._expect(callers, run, text)
            await anyio.sleep(self._chance.uniform(0, 1.8 * self._plan.seconds / self._plan.runs))

            if number % 40 == 20:
                await self._submit_burst(callers)

    async def _submit_burst(self, callers: TaskGroup) -> None:
        burst = self._task.options(max_attempts=100)
        numbers = range(len(self.texts), len(self.texts) + 20)

        async def submit(text: str) -> None:
            self._expect(callers, await burst.asubmit(text), text)

        if self._chance.random() < 0.5:
            async with anyio.create_task_group() as submits:
                for number in numbers:
                    submits.start_soon(submit, f"one of a burst, {number}")
        else:
            texts = [f"one of many, {number}" for number in numbers]
            runs = await burst.asubmit_many([{"text": text} for text in texts])
            for run, text in zip(runs, texts, strict=True):
                self._expect(callers, run, text)

    async def _submit_late(self, callers: TaskGroup) -> None:
        """By statements of another service, in transactions that are as long as it pleases, and undone now and then."""
        async with await psycopg.AsyncConnection.connect(self._dsn) as conn:
            for number in range(self._plan.runs // 8):
                run_id, text = new_run_id(), f"late {number}"
                session_id = f"session {self._chance.randrange(8)}" if self._chance.random() < 0.2 else None
                await conn.execute(
                    "insert into pgrun.jobs (run_id, name, input, session_id, max_attempts) values (%s, %s, %s, %s, 100)",
                    [run_id, self._task.name, Jsonb({"text": text}), session_id],
                )
                await anyio.sleep(self._chance.uniform(0, 0.2))
                if self._chance.random() < 0.3:
                    await conn.rollback()
                else:
                    await conn.commit()
                    self.texts[run_id] = text
                    callers.start_soon(self._await_from_afar, run_id)

    def _expect(self, callers: TaskGroup, run: Run[str] | RunOutput[str], text: str) -> None:
        self.texts[run.run_id] = text
        callers.start_soon(self._await_answer, run)

    async def _await_answer(self, run: Run[str] | RunOutput[str]) -> None:
        try:
            self.answers[run.run_id] = await run.aresult()
        except (RunCancelled, RunFailed) as error:
            self.answers[run.run_id] = type(error).__name__

    async def _await_from_afar(self, run_id: str) -> None:
        """By somebody whom not every notification reaches, and who asks again when the network is back."""
        ended = list[RunOutput[Any]]()
        while not ended:
            with suppress(DatabaseUnavailable):
                ended = await self._cut_off.await_runs([run_id])
        self.answers[run_id] = str(ended[0].content) if ended[0].status == "completed" else "RunCancelled"

    async def _work_in_danger(self, db: PostgresDb) -> None:
        while True:
            with suppress(DatabaseUnavailable):  # the network is cut just when it starts
                await self._work_for_a_while(db)

    async def _work_for_a_while(self, db: PostgresDb) -> None:
        seconds, grace = self._chance.uniform(0.1, 1.5), self._chance.choice((0.0, 0.1, 5.0))
        if self._chance.random() < 0.5:
            with anyio.move_on_after(seconds):
                async with Worker(db, concurrency=self._chance.randint(1, 6), grace=grace):
                    await anyio.sleep_forever()
        else:
            async with Worker(db, concurrency=self._chance.randint(1, 6), grace=grace):
                await anyio.sleep(seconds)

    async def _endanger_a_process(self) -> None:
        while True:
            options = ("--import", "support.storm_tasks", "--concurrency", "5", "--grace", "0.2")
            worker = self._processes.worker(*options, lease=self._plan.lease, dsn=self._proxy.conninfo)
            try:
                await anyio.sleep(self._chance.uniform(0.8, 3))  # also before it is ready
                match self._chance.choice(("kill", "stop", "terminate")):
                    case "stop":
                        worker.send(signal.SIGSTOP)
                        await anyio.sleep(self._chance.uniform(0.1, 1.5 * self._plan.lease))
                        worker.send(signal.SIGCONT)
                        await anyio.sleep(self._chance.uniform(0, 1))
                    case "terminate":
                        worker.send(signal.SIGTERM)
                        await worker.ends()
            finally:
                worker.kill()

    async def _cut_the_network(self) -> None:
        while True:
            await anyio.sleep(self._chance.uniform(0.2, 1))
            match self._chance.choice(("cut", "lose", "hole", "mute")):
                case "cut":
                    self._proxy.cut()
                case "lose":
                    self._proxy.lose_answer(
                        self._chance.choice(("claim_runs", "finish_runs", "retry_run", "rescue_runs"))
                    )
                case "hole":
                    self._proxy.black_hole()
                    try:
                        await anyio.sleep(self._chance.uniform(0.1, 0.5))
                    finally:  # also if the storm ends in it
                        self._proxy.heal()
                case "mute":
                    self._proxy.swallows = True
                    try:
                        await anyio.sleep(self._chance.uniform(0.2, 1))
                    finally:
                        self._proxy.swallows = False

    async def _cancel_some(self) -> None:
        while True:
            await anyio.sleep(self._chance.uniform(0, 0.1))
            if self.texts:
                await self._agent.acancel_run(self._chance.choice([*self.texts]))

    async def _retry_some(self) -> None:
        verbs = (await self._db.connected()).verbs
        while True:
            await anyio.sleep(self._chance.uniform(0, 0.2))
            for row in await verbs.list_runs(status="cancelled", max_rows=3):
                self.retried.add(str(row["run_id"]))  # before, because the end of the storm may come between the two
                with suppress(UsageError):  # somebody else was faster
                    await verbs.retry_ended(str(row["run_id"]))
