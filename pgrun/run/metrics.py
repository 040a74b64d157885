"""What a run used: tokens, money, time; and what is known of its last answer."""

from pydantic import BaseModel


class LastAnswer(BaseModel):
    """What is known of an answer of the model beside what it used."""

    provider: str
    """As `Model.provider`."""
    model: str
    """The provider's name of the model."""
    response_id: str | None = None
    """The provider's id of the answer."""
    rate_limits: dict[str, float] | None = None
    """What the provider said with it of its limits, see `ModelResponse.rate_limits`."""


class RunMetrics(BaseModel):
    """What a run used, all its attempts and repair turns together; what the runs that it started used is in `children`."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    """Part of `input_tokens` that the provider had in its cache."""
    reasoning_tokens: int = 0
    """Part of `output_tokens` that the model thought with."""
    cost_usd: float | None = None
    duration: float = 0.0
    """Seconds a worker spent on it."""
    time_to_first_token: float | None = None
    """Seconds from a call of the model to the first piece of its answer, of the first answer that came in pieces; an attempt that
    takes over does not change it. Answers in background mode do, others if somebody reads along."""
    last_answer: LastAnswer | None = None
    """Of the agent's model, in whichever attempt; no part of a sum."""
    children: "RunMetrics | None" = None
    """What the runs that it started have used, with all that those started; no part of the other figures."""

    def __add__(self, other: "RunMetrics") -> "RunMetrics":
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return RunMetrics(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_usd=sum(costs) if costs else None,
            duration=self.duration + other.duration,
            time_to_first_token=other.time_to_first_token
            if self.time_to_first_token is None
            else self.time_to_first_token,
            last_answer=other.last_answer or self.last_answer,
            children=self.children + other.children
            if self.children and other.children
            else self.children or other.children,
        )

    def with_children(self) -> "RunMetrics":
        """What the run and all below it have used, as its parent counts it."""
        own = self.model_copy(update={"children": None, "time_to_first_token": None, "last_answer": None})
        return own + self.children if self.children else own
