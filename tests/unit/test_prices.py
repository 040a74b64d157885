"""What calls cost: by the price lists, for whom they know, and never a guess."""

import pytest

from pgrun import OpenAIChat, OpenAIResponses, RunMetrics
from pgrun.models._openai_model import OpenAIModel
from pgrun.models._prices import cost_of
from pgrun.models.base import ModelResponse

OPENAI = "https://api.openai.com/v1"
USAGE = RunMetrics(input_tokens=1_000_000, output_tokens=1_000_000, total_tokens=2_000_000)


def test_output_costs_more_than_input_and_what_was_cached_less() -> None:
    read = cost_of(OPENAI, "gpt-5-mini", RunMetrics(input_tokens=1_000_000))
    cached = cost_of(OPENAI, "gpt-5-mini", RunMetrics(input_tokens=1_000_000, cached_tokens=1_000_000))
    written = cost_of(OPENAI, "gpt-5-mini", RunMetrics(output_tokens=1_000_000))
    assert read
    assert cached
    assert written
    assert 0 < cached < read < written
    assert cost_of(OPENAI, "gpt-5-mini", USAGE) == pytest.approx(read + written)


def test_a_dated_model_has_the_price_of_its_family() -> None:
    assert cost_of(OPENAI, "gpt-5-mini-2025-08-07", USAGE) == cost_of(OPENAI, "gpt-5-mini", USAGE)


@pytest.mark.parametrize(
    ("base_url", "model"),
    [
        (OPENAI, "no-such-model"),
        ("http://127.0.0.1:8000/v1", "gpt-5-mini"),
        ("https://proxy.example.com/v1", "gpt-5-mini"),
    ],
)
def test_nobody_knows_the_price_of_other_models_and_of_other_addresses(base_url: str, model: str) -> None:
    assert cost_of(base_url, model, USAGE) is None


@pytest.mark.parametrize("make", [OpenAIResponses, OpenAIChat])
def test_an_answer_is_priced_by_the_model_that_gave_it_where_it_was_called(
    make: type[OpenAIModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    answer = ModelResponse("yes", usage=USAGE, model="gpt-5-nano-2025-08-07")
    model = make("gpt-5-mini")  # type: ignore[call-arg]
    assert model._priced(answer).usage.cost_usd == cost_of(OPENAI, "gpt-5-nano", USAGE)
    assert model._priced(ModelResponse("yes", usage=USAGE)).usage.cost_usd == cost_of(OPENAI, "gpt-5-mini", USAGE)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    assert model._priced(answer).usage == USAGE
