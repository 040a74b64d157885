"""A program of a person who is asked: it decides on all that a run waits for, and prints what the run answers then."""

import sys

import anyio

from pgrun import PostgresDb
from support.desk_agent import Receipt, desk


async def main(run_id: str) -> None:
    async with PostgresDb(worker="external") as db:
        agent = desk(db)
        run = await agent.aget_run_output(run_id)
        assert run is not None
        for requirement in run.active_requirements:
            if requirement.needs_confirmation:
                requirement.confirm()
            elif requirement.needs_user_input:
                requirement.provide_user_input({"street": "Elm"})
            elif requirement.needs_external_execution:
                requirement.set_external_execution_result("signed")
        ended = await agent.acontinue_run(run_id=run_id, requirements=run.requirements, output_schema=Receipt)
        print(repr(ended.content), flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
