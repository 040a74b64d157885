"""The agents of tests that are not about agents."""

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy
from pgrun.testing import ModelServer

PATIENT = RetryPolicy(base_delay=0.05, max_attempts=5)


def answering_agent(db: PostgresDb, models: ModelServer, *, retry: RetryPolicy = PATIENT) -> Agent[str]:
    """An agent that answers in text, and tries again soon."""
    model = OpenAIResponses("gpt-5-mini", base_url=models.base_url, api_key=models.api_key)
    return Agent(name="Answering", model=model, db=db, retry=retry)


def calls_for(models: ModelServer, text: str) -> list[str]:
    """How the model calls for a run with this input have ended, in the order they were made."""
    return [call.outcome for call in models.calls if call.text == text]
