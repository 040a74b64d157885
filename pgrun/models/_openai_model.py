"""What the models behind the two APIs share: how they are declared, stored and loaded, and whose key they use."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

from pgrun.errors import AttemptError, UsageError
from pgrun.models._openai_client import NO_KEY, Account
from pgrun.models._prices import cost_of
from pgrun.models.base import ModelResponse
from pgrun.run.metrics import RunMetrics


class OpenAIModel:
    """A model of OpenAI, or of a compatible server; its class says through which API."""

    provider: str
    id: str
    timeout: float
    _names: ClassVar[tuple[str, ...]]
    """The options of the API that it takes; those that are not None are stored and sent."""

    def _declare(self, given: Mapping[str, Any]) -> None:
        """Checks and keeps the arguments of the constructor."""
        _check(type(self).__name__, given["id"], given["base_url"], given["timeout"])
        self.id = given["id"]
        self.timeout = given["timeout"]
        self._account = Account(**{name: given[name] for name in ("api_key", "base_url", "organization")})
        self._options: dict[str, Any] = {name: given[name] for name in self._names if given[name] is not None}

    def _priced(self, response: ModelResponse) -> ModelResponse:
        """The same with what it has cost."""
        return replace(response, usage=self._with_cost(response.usage, response.model))

    def _with_cost(self, usage: RunMetrics, model: str | None = None) -> RunMetrics:
        """The same with what it has cost; `model` as the provider named it in the answer."""
        cost = cost_of(self._account.base_url or _own_url(), model or self.id, usage)
        return usage.model_copy(update={"cost_usd": cost})

    @contextmanager
    def _pricing(self) -> Iterator[None]:
        """Adds to the usage of a failed answer what it has cost."""
        try:
            yield
        except AttemptError as error:
            if error.metrics is not None and error.metrics.total_tokens:
                error.metrics = self._with_cost(error.metrics)
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"

    def definition(self) -> dict[str, Any]:
        """See `Model.definition`; the key is left out."""
        definition: dict[str, Any] = {
            "provider": self.provider,
            "id": self.id,
            "timeout": self.timeout,
            **self._options,
        }
        account = {"base_url": self._account.base_url, "organization": self._account.organization}
        return definition | {name: value for name, value in account.items() if value is not None}

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Self:
        """The model that `definition` described, to be called with this process's own key.

        A definition comes from the database, where others may write. So that none of them can have the key sent to a
        server of theirs, it goes only to addresses that this process trusts by itself.
        """
        options = {name: value for name, value in definition.items() if name != "provider"}
        if unknown := options.keys() - {"id", "timeout", "base_url", "organization", *cls._names}:
            raise UsageError(f"this pgrun does not know the option {', '.join(sorted(unknown))} of {cls.__name__}")
        base_url = options.get("base_url")
        key = None if base_url is None or _is_trusted(base_url) else NO_KEY
        make: Any = cls  # each class spells its options out
        model: Self = make(**options, api_key=key)
        return model


def timed(response: ModelResponse, time_to_first_token: float | None) -> ModelResponse:
    """The same with how long it let wait."""
    return replace(response, usage=response.usage.model_copy(update={"time_to_first_token": time_to_first_token}))


def _check(name: str, model_id: object, base_url: object, timeout: object) -> None:
    if not isinstance(model_id, str) or not model_id:
        raise UsageError(f"{name}(id={model_id!r}) needs the name of a model, as the provider says it")
    if base_url is not None and (not isinstance(base_url, str) or not base_url.startswith(("http://", "https://"))):
        raise UsageError(f"{name}(base_url={base_url!r}): a URL that begins with http:// or https://")
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise UsageError(f"{name}(timeout={timeout!r}): seconds, more than 0")


def _is_trusted(base_url: str) -> bool:
    listed = os.environ.get("PGRUN_TRUSTED_BASE_URLS", "").split(",")
    return base_url.rstrip("/") in {url.strip().rstrip("/") for url in (_own_url(), *listed)}


def _own_url() -> str:
    return os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
