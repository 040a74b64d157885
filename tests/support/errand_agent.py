"""An agent with an idempotent tool that a test can hold up; workers get it by ``--import support.errand_agent``."""

import time
from pathlib import Path

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy, RunContext, tool


@tool(repeat="idempotent")
def note(line: str, run: RunContext) -> str:
    """Writes a line and the key of the call into the run's file, and returns when there is a file of its name and ``.go``."""
    file = Path(run.metadata["file"])
    with file.open("a", encoding="utf-8") as opened:
        opened.write(f"{line} {run.idempotency_key}\n")
    while not file.with_suffix(".go").exists():
        time.sleep(0.01)
    return "noted"


def errands(db: PostgresDb | None = None) -> Agent[str]:
    """The agent; the one of this module has no database, because workers bring their own."""
    model = OpenAIResponses("gpt-5-mini", api_key="test")
    return Agent(name="Errand", model=model, tools=[note], db=db, retry=RetryPolicy(base_delay=0.05))


errands()
