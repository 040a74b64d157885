"""What an agent is, as data: it travels with each of its runs, so that a worker without user code can execute them.

An agent with tools is code; its runs go to workers that have imported it and know it by its name.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
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
    """Model, prompts, retry policy and tools of an agent; `history_runs` is how many runs of its session it is shown."""

    model: Model
    description: str | None = None
    instructions: tuple[str, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    tools: Toolset = field(default_factory=Toolset)
    history_runs: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.description, str | None):
            raise UsageError(f"description: a text, not {self.description!r:.100}")
        if not isinstance(self.history_runs, int) or self.history_runs < 0:
            raise UsageError(f"num_history_runs={self.history_runs!r}: how many runs, a whole number")

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
            "history_runs": self.history_runs,
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
        if unknown := data.keys() - {"model", "description", "instructions", "retry", "history_runs"}:
            raise UsageError(f"definition: this pgrun does not know {', '.join(sorted(unknown))}")
        if not isinstance(data.get("model"), Mapping):
            raise UsageError('definition.model is missing: give {"provider": "openai.responses", "id": "gpt-5-mini"}')
        try:
            return cls(
                model=load_model(data["model"]),
                description=data.get("description"),
                instructions=lines_of(data.get("instructions", ())),
                retry=RetryPolicy(**data.get("retry", {})),
                history_runs=data.get("history_runs", 0),
            )
        except (AttributeError, TypeError) as error:
            raise UsageError(f"definition: {error}") from error

    def messages(self, run_input: Any, history: Iterable[tuple[Any, Any, bool]] = ()) -> tuple[Message, ...]:
        """The conversation to begin with: the system prompt, what was said before, then the input of the run.

        Args:
            run_input: The input, as it is stored.
            history: Input and output of earlier runs, as they are stored, and whether they completed; the earliest first.
        """
        prompt = self._system_prompt()
        system = (Message("system", prompt),) if prompt else ()
        before = (message for run in history for message in _exchange(*run))
        return (*system, *before, *_messages_of(run_input))

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


def _exchange(run_input: Any, output: Any, completed: bool) -> tuple[Message, ...]:
    """A run that is over, as it is remembered: what it was told, without its system prompts, and what it answered."""
    told = tuple(message for message in _messages_of(run_input) if message.role != "system")
    if not completed:
        return told
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return (*told, Message("assistant", text))


def _is_message(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"role", "content"}
        and item["role"] in (*_ROLES, *_ALIASES)
        and isinstance(item["content"], str)
    )
