"""A program such as users write: it submits runs, executes them itself where no daemon does, and leaves or stays.

``python -m support.submitting leave|stay TEXT...`` leaves as soon as all its runs are running, or waits for their ends.
"""

import asyncio
import sys

from pgrun import Agent, OpenAIResponses, PostgresDb, Settings

db = PostgresDb(settings=Settings(lease=2.0))
agent = Agent(name="Submitting", model=OpenAIResponses("gpt-5-mini"), db=db)


async def main(mode: str, texts: list[str]) -> None:
    run_ids = []
    for text in texts:
        run_ids.append((await agent.arun(text, background=True)).run_id)
        print("submitted", run_ids[-1])
    if mode == "stay":
        await db.await_runs(run_ids)
        print("all ended")
    while mode == "leave" and not await _all_running(run_ids):  # noqa: ASYNC110  no event tells of a start
        await asyncio.sleep(0.01)


async def _all_running(run_ids: list[str]) -> bool:
    runs = [await agent.aget_run_output(run_id) for run_id in run_ids]
    return all(run is not None and run.status == "running" for run in runs)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
