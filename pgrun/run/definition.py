"""What an agent is, as data: it travels with each of its runs, so that a worker without user code can execute them.

An agent with tools is code; its runs go to workers that have imported it and know it by its name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pgrun.errors import UsageError
from pgrun.models.base import Message, Model, load_model
from pgrun.retry import RetryPolicy
from pgrun.run._toolset import Toolset

_ROLES = ("system", "user", "assistant")
_ALIASES = {"developer": "system"}


@dataclass(frozen=True)
class AgentDefinition:
    """Model, prompts, retry policy and tools of an agent."""

    model: Model
    description: str | None = None
    instructions: tuple[str, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    tools: Toolset = field(default_factory=Toolset)

    def __post_init__(self) -> None:
        if not isinstance(self.description, str | None):
            raise UsageError(f"description: a text, not {self.description!r:.100}")

    @property
    def travels(self) -> bool:
        """Whether it can be stored: tools are code, which only those who imported it have."""
        return not self.tools.tools

    def to_json(self) -> dict[str, Any]:
        """JSON data to store in `jobs.definition`, without the tools; what is at its default is left out."""
        retry = asdict(self.retry)
        given = {
            "description": self.description,
            "instructions": list(self.instructions),
            "retry": {name: value for name, value in retry.items() if value != getattr(RetryPolicy(), name)},
        }
        return {"model": self.model.definition()} | {name: value for name, value in given.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "AgentDefinition":
        """The definition that `to_json` wrote, or that a person did.

        Raises:
            UsageError: A part is missing, unknown or of the wrong type; the message names it.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"definition: an object, not {data!r:.100}")
        if unknown := data.keys() - {"model", "description", "instructions", "retry"}:
            raise UsageError(f"definition: this pgrun does not know {', '.join(sorted(unknown))}")
        if not isinstance(data.get("model"), Mapping):
            raise UsageError('definition.model is missing: give {"provider": "openai.responses", "id": "gpt-5-mini"}')
        try:
            return cls(
                model=load_model(data["model"]),
                description=data.get("description"),
                instructions=lines_of(data.get("instructions", ())),
                retry=RetryPolicy(**data.get("retry", {})),
            )
        except (AttributeError, TypeError) as error:
            raise UsageError(f"definition: {error}") from error

    def messages(self, run_input: Any) -> tuple[Message, ...]:
        """The conversation to begin with: the system prompt, then the input of the run."""
        prompt = self._system_prompt()
        system = (Message("system", prompt),) if prompt else ()
        return (*system, *_messages_of(run_input))

    def _system_prompt(self) -> str:
        bullets = [f"- {line}" for line in self.instructions] if len(self.instructions) > 1 else self.instructions
        return "\n".join(part for part in (self.description, *bullets) if part)


def lines_of(instructions: Any) -> tuple[str, ...]:
    """One instruction or several; `UsageError` if it is neither."""
    lines = (instructions,) if isinstance(instructions, str) else instructions
    if isinstance(lines, Sequence) and all(isinstance(line, str) for line in lines):
        return tuple(lines)
    raise UsageError(f"instructions: a text or a list of texts, not {instructions!r:.100}")


def _messages_of(run_input: Any) -> tuple[Message, ...]:
    """A text is what the user says; a list of role and content is a conversation; anything else is shown as JSON."""
    if isinstance(run_input, str):
        return (Message("user", run_input),)
    if isinstance(run_input, list) and run_input and all(_is_message(item) for item in run_input):
        return tuple(Message(_ALIASES.get(item["role"], item["role"]), item["content"]) for item in run_input)
    return (Message("user", json.dumps(run_input, ensure_ascii=False)),)


def _is_message(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"role", "content"}
        and item["role"] in (*_ROLES, *_ALIASES)
        and isinstance(item["content"], str)
    )
