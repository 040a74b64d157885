"""What an agent is, as data: it travels with each of its runs, so that a worker without user code can execute them.

Tools, hooks and whatever else is code stays where it was imported; runs of an agent with code go to workers that know it by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pgrun.errors import UsageError
from pgrun.models.base import Message, Model, load_model
from pgrun.retry import RetryPolicy
from pgrun.run._code import Code
from pgrun.run._toolset import Toolset
from pgrun.run.conversation import Past, Prompt, conversation
from pgrun.run.previous import check_keeps

_TEXTS = ("description", "expected_output", "additional_context", "parser_model_prompt")
_SWITCHES = (
    *("markdown", "add_dependencies_to_context", "add_session_state_to_context", "add_tools_to_history"),
    *("use_json_mode", "use_previous_response_id"),
)
_OBJECTS = ("dependencies", "session_state")


@dataclass(frozen=True)
class AgentDefinition:
    """Model, prompts, retry policy, tools and hooks of an agent; the fields are as the options of `Agent`.

    Attributes:
        history_runs: How many runs of its session it is shown.
        holds_session: Whether its session waits while a run is paused, which only runs with tools ever are.
        session_state: What the state of a session begins with; None if the agent has no use for it.
    """

    model: Model
    description: str | None = None
    instructions: tuple[str, ...] | Code = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    tools: Toolset = field(default_factory=Toolset)
    history_runs: int = 0
    holds_session: bool = True
    add_tools_to_history: bool = False
    expected_output: str | None = None
    additional_context: str | None = None
    markdown: bool = False
    dependencies: Mapping[str, Any] = field(default_factory=dict)
    add_dependencies_to_context: bool = False
    session_state: Mapping[str, Any] | None = None
    add_session_state_to_context: bool = False
    parser_model: Model | None = None
    parser_model_prompt: str | None = None
    use_json_mode: bool = False
    use_previous_response_id: bool = False
    pre_hooks: tuple[Code, ...] = ()
    post_hooks: tuple[Code, ...] = ()

    def __post_init__(self) -> None:
        for name in _TEXTS:
            _check(name, getattr(self, name), str | None, "a text")
        for name in _SWITCHES:
            _check(name, getattr(self, name), bool, "True or False")
        for name in _OBJECTS:
            _check(name, getattr(self, name), Mapping | None, "a dict")
        if not isinstance(self.history_runs, int) or self.history_runs < 0:
            raise UsageError(f"num_history_runs={self.history_runs!r}: how many runs, a whole number")
        if self.use_previous_response_id:
            check_keeps(self.model)
            if not self.history_runs:
                raise UsageError(
                    "use_previous_response_id: how the model is given its history; that needs add_history_to_context=True"
                )

    @property
    def code(self) -> tuple[Callable[..., Any], ...]:
        """Every function in it, which only those have who imported it."""
        instructions = (self.instructions,) if isinstance(self.instructions, Code) else ()
        dependencies = (each for each in self.dependencies.values() if isinstance(each, Code))
        used = (*self.tools.tools, *instructions, *dependencies, *self.pre_hooks, *self.post_hooks)
        return tuple(each.function for each in used)

    @property
    def travels(self) -> bool:
        """Whether it can be stored."""
        return not self.code

    @property
    def uses_state(self) -> bool:
        """Whether a run of it may ask for the state of its session."""
        return (
            self.session_state is not None
            or self.add_session_state_to_context
            or any(each.wants_context for each in self.tools.tools)
            or len(self.code) > len(self.tools.tools)
        )

    def to_json(self) -> dict[str, Any]:
        """JSON data to store in `jobs.definition`, without the code; what is at its default is left out."""
        retry = asdict(self.retry)
        given = {
            "instructions": [] if isinstance(self.instructions, Code) else list(self.instructions),
            "retry": {name: value for name, value in retry.items() if value != getattr(RetryPolicy(), name)},
            "history_runs": self.history_runs,
            "parser_model": self.parser_model and self.parser_model.definition(),
            **{name: getattr(self, name) for name in (*_TEXTS, *_SWITCHES, *_OBJECTS)},
        }
        return {"model": self.model.definition()} | {
            name: value for name, value in given.items() if value or (name == "session_state" and value is not None)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "AgentDefinition":
        """The definition that `to_json` wrote, or that a person did.

        Raises:
            UsageError: A part is missing, unknown or of the wrong type; the message names it.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"definition: an object, not {data!r:.100}")
        plain = ("history_runs", *_TEXTS, *_SWITCHES, *_OBJECTS)
        if unknown := data.keys() - {"model", "parser_model", "instructions", "retry", *plain}:
            raise UsageError(f"definition: this pgrun does not know {', '.join(sorted(unknown))}")
        if not isinstance(data.get("model"), Mapping):
            raise UsageError('definition.model is missing: give {"provider": "openai.responses", "id": "gpt-5-mini"}')
        try:
            return cls(
                model=load_model(data["model"]),
                parser_model=load_model(data["parser_model"]) if data.get("parser_model") else None,
                instructions=lines_of(data.get("instructions", ())),
                retry=RetryPolicy(**data.get("retry", {})),
                **{name: data[name] for name in plain if name in data},
            )
        except (AttributeError, TypeError) as error:
            raise UsageError(f"definition: {error}") from error

    def prompt(self, instructions: Sequence[str], *, is_typed: bool, session_state: Mapping[str, Any]) -> Prompt:
        """The system prompt of one run; an answer that is typed is not in Markdown."""
        return Prompt(
            self.description,
            instructions,
            self.markdown and not is_typed,
            self.expected_output,
            self.additional_context,
            session_state if self.add_session_state_to_context else None,
        )

    def messages(self, run_input: Any, past: Sequence[Past] = ()) -> tuple[Message, ...]:
        """The conversation to begin with, for an agent without code."""
        assert not isinstance(self.instructions, Code)
        return conversation(self.prompt(self.instructions, is_typed=False, session_state={}), run_input, past)


def lines_of(instructions: Any) -> tuple[str, ...]:
    """One instruction or several; `UsageError` if it is neither."""
    lines = (instructions,) if isinstance(instructions, str) else instructions
    if isinstance(lines, Sequence) and all(isinstance(line, str) for line in lines):
        return tuple(lines)
    raise UsageError(f"instructions: a text or a list of texts, not {instructions!r:.100}")


def _check(name: str, value: object, kind: Any, words: str) -> None:
    if not isinstance(value, kind):
        raise UsageError(f"{name}: {words}, not {value!r:.100}")
