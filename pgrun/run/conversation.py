"""How the conversation of a run begins: the system prompt, what was said in the session before, and what the run is asked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgrun.models.base import Message, Model
from pgrun.run.loop import as_message, recorded_answer
from pgrun.run.previous import Previous

_ROLES = ("system", "user", "assistant")
_ALIASES = {"developer": "system"}
_MARKDOWN = "<additional_information>\n- Use markdown to format your answers.\n</additional_information>"
_INTERRUPTED = "The call was interrupted before it had a result."


@dataclass(frozen=True)
class Past:
    """An earlier run of the session, as it is stored.

    Attributes:
        input: What it was asked.
        output: What it answered, if it completed.
        completed: Whether it did; else it was interrupted.
        said: What was said to it while it was open.
        steps: Kind and data of the steps in its journal; none if the model is not to be shown what tools it used.
        answer: What the provider said with its last answer, as `LastAnswer` has it, if that is known.
    """

    input: Any
    output: Any
    completed: bool = True
    said: Sequence[str] = ()
    steps: Sequence[tuple[str, Any]] = ()
    answer: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Prompt:
    """What the system prompt says, part by part; see the options of `Agent`. None and empty parts are left out."""

    description: str | None = None
    instructions: Sequence[str] = ()
    markdown: bool = False
    expected_output: str | None = None
    additional_context: str | None = None
    session_state: Mapping[str, Any] | None = None

    def text(self) -> str:
        """All of it."""
        bullets = [f"- {line}" for line in self.instructions] if len(self.instructions) > 1 else self.instructions
        expected = f"<expected_output>\n{self.expected_output}\n</expected_output>" if self.expected_output else None
        state = (
            None if self.session_state is None else f"<session_state>\n{_json(self.session_state)}\n</session_state>"
        )
        markdown = _MARKDOWN if self.markdown else None
        parts = (self.description, *bullets, markdown, expected, self.additional_context, state)
        return "\n".join(part for part in parts if part)


def conversation(
    prompt: Prompt,
    run_input: Any,
    past: Sequence[Past] = (),
    *,
    dependencies: Mapping[str, Any] | None = None,
    media: Sequence[Mapping[str, Any]] = (),
) -> tuple[Message, ...]:
    """The messages to begin with.

    Args:
        prompt: The system prompt.
        run_input: What the run is asked, as it is stored.
        past: Earlier runs, the earliest first.
        dependencies: What the model is shown beside the input; None for nothing.
        media: Images and files that belong to the input, see `Message.media`.
    """
    text = prompt.text()
    system = (Message("system", text),) if text else ()
    before = (message for run in past for message in _remembered(run))
    asked = _messages_of(run_input)
    if dependencies is not None:
        asked = _with_last(asked, f"\n\n<additional context>\n{_json(dependencies)}\n</additional context>", ())
    return (*system, *before, *(_with_last(asked, "", media) if media else asked))


def split(past: Sequence[Past], model: Model) -> tuple[Previous, Sequence[Past]]:
    """The last answer that this model's provider has given and kept, and the runs after it, which have to be told."""
    for place in range(len(past), 0, -1):
        if response_id := _kept(past[place - 1], model):
            messages = tuple(message for run in past[:place] for message in _remembered(run))
            return Previous(response_id, messages), past[place:]
    return Previous(), past


def _kept(past: Past, model: Model) -> str | None:
    answer = past.answer or {}
    return answer.get("response_id") if past.completed and answer.get("provider") == model.provider else None


def _messages_of(run_input: Any) -> tuple[Message, ...]:
    """A text is what the user says; a list of role and content is a conversation; anything else is shown as JSON."""
    if isinstance(run_input, str):
        return (Message("user", run_input),)
    if isinstance(run_input, list) and run_input and all(_is_message(item) for item in run_input):
        return tuple(Message(_ALIASES.get(item["role"], item["role"]), item["content"]) for item in run_input)
    return (Message("user", _json(run_input)),)


def _with_last(messages: tuple[Message, ...], more: str, media: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """With something added to what the user said last; said now, if the user has said nothing."""
    place = max((place for place, each in enumerate(messages) if each.role == "user"), default=None)
    if place is None:
        return (*messages, Message("user", more.strip(), media=tuple(map(dict, media))))
    last = messages[place]
    last = replace(last, content=last.content + more, media=(*last.media, *map(dict, media)))
    return (*messages[:place], last, *messages[place + 1 :])


def _remembered(past: Past) -> Iterator[Message]:
    """A run that is over: what it was told, without its system prompts, what it did, and what it answered."""
    yield from (message for message in _messages_of(past.input) if message.role != "system")
    if past.steps:
        yield from _done(past.steps)
    else:
        yield from (Message("user", text) for text in past.said)
    if past.completed:
        yield Message("assistant", past.output if isinstance(past.output, str) else _json(past.output))


def _done(steps: Sequence[tuple[str, Any]]) -> Iterator[Message]:
    """What a journal tells, without the answers that were repaired or parsed: only the last form of them was given."""
    results = {data["call_id"]: data for kind, data in steps if kind == "tool_call"}
    for (kind, data), (after, _) in zip(steps, [*steps[1:], ("", None)], strict=True):
        if kind == "message":
            yield from (Message("user", text) for text in data)
        elif kind == "model_call":
            answer = recorded_answer(data)
            if answer.calls:
                yield as_message(answer)
                yield from (_result(call.call_id, results.get(call.call_id)) for call in answer.calls)
            elif after == "message":
                yield Message("assistant", answer.text)


def _result(call_id: str, execution: Mapping[str, Any] | None) -> Message:
    text = (execution.get("result") or execution.get("error") or "") if execution else _INTERRUPTED
    return Message("tool", text, call_id=call_id)


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)


def _is_message(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"role", "content"}
        and item["role"] in (*_ROLES, *_ALIASES)
        and isinstance(item["content"], str)
    )
