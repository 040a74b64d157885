"""An agent with a tool; a worker gets it by ``--import support.tool_agent``, and finds the model by its environment."""

from pathlib import Path

from pgrun import Agent, OpenAIResponses, PostgresDb, RunContext, tool


@tool(repeat="unsafe")
def note(line: str, run: RunContext) -> str:
    """Writes a line into the file that the run's metadata names."""
    with Path(run.metadata["file"]).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return "noted"


def errands(db: PostgresDb | None = None) -> Agent[str]:
    """The agent; the one of this module has no database, because workers bring their own."""
    return Agent(name="Errands", model=OpenAIResponses("gpt-5-mini", api_key="test"), tools=[note], db=db)


errands()
