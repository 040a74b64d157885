"""What `Agent` can be told when it is declared, and the definition that is made of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from pgrun.db.postgres import PostgresDb
from pgrun.errors import UsageError
from pgrun.models.base import Model
from pgrun.models.openai import OpenAIResponses
from pgrun.retry import RetryPolicy
from pgrun.run._code import Code
from pgrun.run._foreign import advice
from pgrun.run._storable import to_jsonable
from pgrun.run._toolset import MAX_TURNS, toolset_of
from pgrun.run.children import Askable
from pgrun.run.definition import AgentDefinition, lines_of
from pgrun.run.options import Multitask

_SAME = (
    *("description", "expected_output", "additional_context", "markdown", "add_dependencies_to_context"),
    *("add_session_state_to_context", "add_tools_to_history", "parser_model_prompt", "use_json_mode"),
    "use_previous_response_id",
)
"""The options that are fields of the definition as they are."""


class AgentOptions(TypedDict, total=False):
    """Keyword arguments of `Agent` beside its output schema; None stands for the default."""

    name: str
    """Shown everywhere, and the name by which SQL submits runs. Default: Agent."""
    model: Model | str | None
    """For example ``OpenAIResponses(id="gpt-5-mini")``, or just that id; there is no default."""
    db: PostgresDb | None
    """Where runs are stored; without it only foreground runs are possible, and they leave no trace."""
    description: str | None
    """First part of the system prompt: who the agent is."""
    instructions: str | Sequence[str] | Callable[..., Any] | None
    """Second part; several are shown as a list. A function is called when a run begins, with its `RunContext`."""
    markdown: bool
    """Whether the system prompt asks for Markdown, where the answer is a text. Default: no."""
    expected_output: str | None
    """What the system prompt says about the answer."""
    additional_context: str | None
    """Last part of the system prompt."""
    dependencies: Mapping[str, Any] | None
    """What tools, hooks and instructions find in their `RunContext`; functions among them are called when a run begins."""
    add_dependencies_to_context: bool
    """Whether the model is shown them, after the input. Default: no."""
    session_state: Mapping[str, Any] | None
    """What the state of each session begins with; see `RunContext.session_state`."""
    add_session_state_to_context: bool
    """Whether the model is shown it as it is when a run begins. Default: no."""
    metadata: Mapping[str, Any] | None
    """Of every run, beside its own."""
    user_id: str | None
    """Of every run that has none."""
    tools: Iterable[Callable[..., Any] | Askable] | None
    """What the model may call before it answers: functions, plain or decorated with ``@tool``, and other agents. They are code
    like hooks, so the runs of such an agent need a worker that has imported it; give it a name of its own, by which that worker
    finds it."""
    tool_call_limit: int | None
    """How many calls a run may make; the model is told of those that were not executed any more."""
    tool_choice: str | Mapping[str, Any] | None
    """Whether the first answer may or has to be a call: `auto`, `none`, `required` or the name of a tool."""
    max_turns: int
    """After so many answers of the model without an end the run fails. Default: 30."""
    pre_hooks: Iterable[Callable[..., Any]] | None
    """Functions that a worker calls before the model is asked, with what their parameters ask for: the `RunContext`, and the
    `RunInput`, in which they may replace the input. What they raise ends the run: `HookFailed`."""
    post_hooks: Iterable[Callable[..., Any]] | None
    """The same after the answer was found valid, with the `RunOutput`, in which they may replace the content."""
    parser_model: Model | str | None
    """Answers in the form of `output_schema` to what the first model has said, which is not told of it. Default: none."""
    parser_model_prompt: str | None
    """What it is told. Default: to extract what the text says."""
    use_json_mode: bool
    """Show the model the schema in the prompt, and have the provider hold it to JSON only. Default: no."""
    add_history_to_context: bool
    """Whether the model is shown what was said in the session before. Default: no."""
    num_history_runs: int
    """By how many runs, at most; of each the input and the answer. Default: 3."""
    add_tools_to_history: bool
    """Whether it is also shown what those runs called, and with what results. Default: no."""
    use_previous_response_id: bool
    """Whether the history is given by the provider's id of the last answer of the session, where the provider has kept that,
    instead of being told as a whole. Then it has all that was said and called since the session began, and the system prompt is
    that of the present run alone; `num_history_runs` and `add_tools_to_history` count where the provider has forgotten it.
    `OpenAIResponses` only. Default: no."""
    holds_session_while_paused: bool
    """Whether the next run of a session waits while one waits for a person. If not, one that goes on then comes before all that
    wait, and after the one that has started meanwhile. Default: yes."""
    queue: str
    """The queue of its runs. Default: default."""
    multitask: Multitask
    """What a run does when its session is busy, unless it says so itself; see `Multitask`. Default: enqueue."""
    retry: RetryPolicy | None
    """When failed attempts are repeated."""
    retries: int | None
    """The same in short: how often, at most."""
    delay_between_retries: float | None
    """Seconds before the first retry; with `retries`. Default: 1."""
    exponential_backoff: bool
    """Whether each delay is twice the one before; with `retries`. Default: no."""


def check_names(name: object, options: Mapping[str, Any]) -> None:
    """Raises `UsageError` for options that do not exist; the message says what there is instead, where it is known."""
    if unknown := sorted(options.keys() - AgentOptions.__annotations__.keys()):
        names = ", ".join(f"{each}=" for each in unknown)
        raise UsageError(f'Agent "{name}" has no option {names}{advice(unknown) or "; see AgentOptions"}')


def definition_of(options: Mapping[str, Any]) -> AgentDefinition:
    """The definition that some options make.

    Raises:
        UsageError: One of them cannot be.
    """
    given = {name: value for name, value in options.items() if value is not None}
    parser = given.get("parser_model")
    toolset = toolset_of(
        given.get("tools"),
        call_limit=given.get("tool_call_limit"),
        choice=given.get("tool_choice"),
        max_turns=given.get("max_turns", MAX_TURNS),
    )
    return AgentDefinition(
        model=model_of(given["model"]),
        instructions=_instructions(given.get("instructions", ())),
        retry=_retry(given),
        tools=toolset,
        history_runs=given.get("num_history_runs", 3) if given.get("add_history_to_context") else 0,
        holds_session=given.get("holds_session_while_paused", True),
        dependencies=_dependencies(given.get("dependencies", {})),
        session_state=_object(given, "session_state"),
        parser_model=None if parser is None else model_of(parser),
        pre_hooks=_hooks(given, "pre_hooks", "run_input", "input"),
        post_hooks=_hooks(given, "post_hooks", "run_output", "output"),
        **{name: given[name] for name in _SAME if name in given},
    )


def model_of(model: object) -> Model:
    """A model as it is, or the one with that id; `UsageError` for anything else."""
    if isinstance(model, str):
        return OpenAIResponses(model)
    if isinstance(model, type) or not isinstance(model, Model):
        raise UsageError(f'model={model!r}: give a model, for example OpenAIResponses(id="gpt-5-mini"), or its id')
    return model


def _instructions(instructions: Any) -> tuple[str, ...] | Code:
    return Code(instructions, "instructions") if callable(instructions) else lines_of(instructions)


def _retry(given: Mapping[str, Any]) -> RetryPolicy:
    short = [name for name in ("retries", "delay_between_retries", "exponential_backoff") if name in given]
    if not short:
        policy = given.get("retry") or RetryPolicy()
        if policy.errors:
            raise UsageError("retry=: rules for exceptions (errors=) are for tasks; those of an agent go with its runs")
        return policy
    if "retry" in given:
        raise UsageError(f"retry= says all of it; leave {', '.join(f'{name}=' for name in short)} out")
    retries, delay = given.get("retries", 0), given.get("delay_between_retries", 1.0)
    if not isinstance(retries, int) or retries < 0:
        raise UsageError(f"retries={retries!r}: how often, a whole number, 0 or more")
    if not isinstance(delay, int | float):
        raise UsageError(f"delay_between_retries={delay!r}: seconds")
    policy = RetryPolicy(max_attempts=retries + 1, base_delay=delay)
    return policy if given.get("exponential_backoff") else replace(policy, max_delay=delay)


def _hooks(given: Mapping[str, Any], name: str, *offered: str) -> tuple[Code, ...]:
    hooks = given.get(name, ())
    if not isinstance(hooks, Iterable):
        raise UsageError(f"{name}: a list of functions, not {hooks!r:.100}")
    return tuple(Code(hook, name.removesuffix("s").replace("_", "-"), *offered) for hook in hooks)


def _dependencies(dependencies: Any) -> dict[str, Any]:
    if not isinstance(dependencies, Mapping):
        raise UsageError(f"dependencies: a dict, not {dependencies!r:.100}")
    code = {name: Code(each, f"dependency {name}:") for name, each in dependencies.items() if callable(each)}
    data = {name: each for name, each in dependencies.items() if name not in code}
    return {**to_jsonable(data, name="dependencies"), **code}


def _object(given: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = given.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"{name}: a dict, not {value!r:.100}")
    return None if value is None else to_jsonable(value, name=name)
