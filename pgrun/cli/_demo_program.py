"""The program that `pgrun demo` runs in a process of its own: what a service would contain. Read it, copy it, change it.

It submits background runs and waits for their typed answers. Nothing in it executes a run: a worker does, in another process.
"""

import anyio
from pydantic import BaseModel, Field

from pgrun import Agent, OpenAIResponses, PostgresDb


class CityFact(BaseModel):
    """What we want to know of a city."""

    city: str = Field(description="Name of the city")
    country: str = Field(description="Country the city is in")
    population: str = Field(description="Approximate population")
    fun_fact: str = Field(description="An interesting fact about the city")


class CityFacts(BaseModel):
    """One entry per city."""

    cities: list[CityFact]


db = PostgresDb()  # $PGRUN_DATABASE_URL

facts_agent = Agent(
    name="CityFacts",
    model=OpenAIResponses(id="gpt-5-mini"),
    description="An agent that provides structured facts about cities.",
    output_schema=CityFacts,
    db=db,
)
quiz_agent = Agent(
    name="Quiz",
    model=OpenAIResponses(id="gpt-5-mini"),
    description="An agent that answers trivia questions in one sentence.",
    db=db,
)


async def main() -> None:
    """One typed answer, then several at once."""
    run = await facts_agent.arun("Give me facts about Tokyo, Paris, and New York.", background=True)
    print(f"{run.run_id} is {run.status}")  # noqa: T201
    facts = await run.aresult(timeout=120)  # wakes by NOTIFY; a CityFacts, not a dict
    for fact in facts.cities:
        print(f"  {fact.city}, {fact.country}. {fact.population}. {fact.fun_fact}")  # noqa: T201

    questions = ("What is the tallest mountain?", "What is the deepest ocean trench?", "What is the longest river?")
    runs = [await quiz_agent.arun(question, background=True) for question in questions]
    for answered in await db.await_runs([run.run_id for run in runs], timeout=120):
        print(f"{answered.run_id} is {answered.status}\n  {answered.input}\n  {answered.content}")  # noqa: T201


if __name__ == "__main__":
    anyio.run(main)
