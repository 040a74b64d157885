"""A program that says something in a session that others talk in too: its number, and how often."""

import sys

import anyio

from pgrun import Agent, OpenAIResponses, PostgresDb


async def main(number: str, times: int) -> None:
    db = PostgresDb(worker="external")
    agent = Agent(name="Talking", model=OpenAIResponses("gpt-5-mini"), db=db)
    async with db:
        runs = [await agent.arun(f"{number}:{place}", session_id="shared", background=True) for place in range(times)]
        await db.await_runs([run.run_id for run in runs], timeout=60)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
