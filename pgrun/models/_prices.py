"""What calls cost, by the price lists of the genai-prices package: what the provider is likely to bill, as far as it is known."""

from pgrun.run.metrics import RunMetrics


def preload() -> None:
    """Loads the lists, which takes half a second at first; to be called in a thread, by any number at once."""
    cost_of("https://api.openai.com/v1", "gpt-5-mini", RunMetrics())


def cost_of(base_url: str, model: str, usage: RunMetrics) -> float | None:
    """US dollars of one call; None if the provider at that address or the model is in no list.

    Args:
        base_url: Where it was called: the same model has another price elsewhere, and behind a proxy none that we know.
        model: As the provider names it.
        usage: Of this call.
    """
    from genai_prices import Usage, calc_price

    tokens = Usage(
        input_tokens=usage.input_tokens, cache_read_tokens=usage.cached_tokens, output_tokens=usage.output_tokens
    )
    try:
        return float(calc_price(tokens, model_ref=model, provider_api_url=base_url).total_price)
    except (LookupError, ValueError):
        return None
