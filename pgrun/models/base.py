"""What the turns of a run need from a model: one call, with a request and a response that know no provider."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol, runtime_checkable

from pgrun.errors import ModelRejected, UsageError
from pgrun.run.metrics import RunMetrics


@dataclass(frozen=True)
class ToolCall:
    """A call that a model asks for.

    Attributes:
        call_id: The provider's, under which the result goes back.
        name: Of the tool; whether there is one of that name is not known yet.
        arguments: JSON text, as the model wrote it.
    """

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One message of a conversation; all of it is JSON data.

    Attributes:
        role: Who says it; `tool` for the result of a call.
        content: The text.
        calls: What an assistant asks for, beside its text.
        call_id: Which call a tool's result answers.
        items: Content and calls once more, just as the provider sent them. To that provider they are sent instead of the two,
            because a model that reasons goes on better when it finds its own thoughts again; others ignore them.
        media: Images and files that belong to what a user says: `type` (image or file), `url` or `data` (base64), and what is
            known of `mime_type`, `filename`, `detail`.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    items: tuple[dict[str, Any], ...] = ()
    media: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class ToolSpec:
    """What a model is told about a tool: `parameters` is a JSON Schema, with `strict` in the subset of strict mode."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool


TOOL_CHOICES = ("auto", "none", "required")
"""What a model may be told about calls, beside the name of a tool."""


@dataclass(frozen=True)
class OutputFormat:
    """The JSON Schema that an answer has to follow, in the subset that strict mode accepts.

    With `json_mode` the provider is not to enforce it, but only that the answer is JSON; the prompt shows the schema.
    """

    name: str
    schema: Mapping[str, Any]
    json_mode: bool = False


class Watch:
    """Hears of a call while it goes on; this one is not interested. Its methods return at once.

    Attributes:
        wants_text: Whether someone reads along, so that the answer should come piece by piece. It may change during a call.
        keeps_ids: Whether what `created` is told is kept where another process finds it. Else nobody can come back to an answer
            that the provider goes on with, and a call that is cancelled stops it there too.
        patience: Seconds for which an answer that was told by `created`, and that the provider has only queued, is waited for;
            then the call raises `AnswerQueued`.
    """

    wants_text: bool = False
    keeps_ids: bool = False
    patience: float = math.inf

    def created(self, response_id: str) -> None:
        """The provider has begun an answer that it goes on with by itself, and under which id it can be had later."""

    def text(self, delta: str) -> None:
        """The next piece of the answer."""

    def thought(self, delta: str) -> None:
        """The next piece of what the model tells of its thoughts."""

    def call(self, call_id: str, name: str) -> None:
        """The model begins to write down a call."""


@dataclass(frozen=True)
class ModelRequest:
    """What is asked of a model.

    Attributes:
        messages: The conversation so far.
        output: What the answer has to follow; None for plain text.
        tools: What the model may call instead of answering.
        tool_choice: `auto`, `none`, `required`, or the name of the tool that has to be called. None: up to the provider.
        watch: Who hears of the call while it goes on. A model that cannot tell anything meanwhile leaves it alone.
        response_id: The id that `Watch.created` was told of in an attempt before: the answer is under way or there already, and
            is not asked for again. A model that never tells of an id finds none here.
        is_kept: Whether a later conversation may go on from the answer by its id. Then what the system says counts for this
            answer alone; else it would be said again with each. Only a `KeepingModel` finds this and the next.
        previous_response_id: The answer that the conversation goes on from; what led to it is not in `messages`.
    """

    messages: tuple[Message, ...]
    output: OutputFormat | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None
    watch: Watch = field(default_factory=Watch, compare=False, repr=False)
    response_id: str | None = None
    is_kept: bool = False
    previous_response_id: str | None = None


@dataclass(frozen=True)
class ModelResponse:
    """An answer that was paid for, whatever became of it.

    Attributes:
        text: The answer; empty if the model refused. Beside calls, what the model says meanwhile.
        ending: How it ended: `completed`, `refused` (the reason is in `refusal`), `truncated` at the token limit, or
            `filtered` by the provider.
        usage: Tokens of this call, and its `time_to_first_token` if it came in pieces from the first one on; `duration` is left
            to the caller.
        response_id: The provider's id of it.
        model: The model that answered, as the provider names it.
        calls: What the model wants to know before it answers.
        items: With calls, what `Message.items` has to be.
        rate_limits: What the provider says of its limits and of what is left of them, None if nothing: `limit_requests`,
            `remaining_requests`, `reset_requests` (seconds), and the same of `tokens`, as far as they are told.
    """

    text: str
    ending: Literal["completed", "refused", "truncated", "filtered"] = "completed"
    refusal: str | None = None
    usage: RunMetrics = field(default_factory=RunMetrics)
    response_id: str | None = None
    model: str | None = None
    calls: tuple[ToolCall, ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    rate_limits: dict[str, float] | None = None


@runtime_checkable
class Model(Protocol):
    """A language model at a provider.

    `provider` is the name under which `load_model` finds the class again; `id` is the provider's name of the model.
    """

    provider: str
    id: str

    def definition(self) -> dict[str, Any]:
        """JSON data from which `load_model` makes an equal model in another process; without any secret."""

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Asks once, without retrying.

        Cancelling it closes the connection to the provider.

        Raises:
            ModelUnavailable: Asking again later may help.
            QuotaExceeded: Nothing will help before a person acts.
            ModelRejected: The request itself is not accepted.
            ModelCallLost: There is nothing under `request.response_id` (any more).
            AnswerQueued: It can be had later, see `Watch.patience`.
        """


@runtime_checkable
class BackgroundModel(Model, Protocol):
    """A model whose provider goes on with an answer by itself; it tells `Watch.created` of them."""

    async def stop(self, response_id: str) -> RunMetrics | None:
        """Has the provider leave off an answer; nothing happens if it has ended, or is not there any more.

        Returns:
            What it has used, ended or not, as far as the provider says so; None if it is not there any more.

        Raises:
            AttemptError: The provider could not be told.
        """


@runtime_checkable
class KeepingModel(Model, Protocol):
    """A model whose provider can keep its answers, so that a later conversation goes on from one of them."""

    @property
    def keeps_answers(self) -> bool:
        """Whether it does."""


class PreviousForgotten(ModelRejected):
    """Nothing can go on from `ModelRequest.previous_response_id` (any more); the request has cost nothing."""


_PROVIDERS = {
    "openai.responses": ("pgrun.models.openai", "OpenAIResponses"),
    "openai.chat": ("pgrun.models.openai_chat", "OpenAIChat"),
}


def load_model(definition: Mapping[str, Any]) -> Model:
    """The model that `Model.definition` described.

    Raises:
        UsageError: This pgrun does not know the provider or one of its options.
    """
    provider = definition.get("provider")
    if provider not in _PROVIDERS:
        raise UsageError(f"unknown model provider {provider!r}; this pgrun knows {', '.join(_PROVIDERS)}")
    module, name = _PROVIDERS[provider]
    model: Model = getattr(import_module(module), name).from_definition(definition)
    return model
