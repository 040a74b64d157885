"""A program that says something in a session again and again, whether that is busy or not."""

import sys

import anyio

from pgrun import Agent, OpenAIResponses, PostgresDb, SessionBusy


async def main(way: str, times: int) -> None:
    db = PostgresDb(worker="external")
    agent = Agent(name="Interrupting", model=OpenAIResponses("gpt-5-mini"), multitask=way, db=db)  # type: ignore[call-overload]
    async with db:
        for number in range(times):
            try:
                await agent.arun(f"{way}:{number}", session_id="shared", background=True)
            except SessionBusy:
                print("rejected")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
