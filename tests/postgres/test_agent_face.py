"""What agents are told beside input and tools: prompts, dependencies, users, hooks, a parser; and what of it travels."""

from typing import Any

import pytest
from pydantic import BaseModel
from support.database import Conn
from support.models import USAGE, ScriptedModel, calling
from support.rows import row_of
from support.steered import Interrupted
from support.tables import one
from support.until import until

from pgrun import (
    Agent,
    File,
    Image,
    ModelUnavailable,
    OpenAIChat,
    OpenAIResponses,
    PostgresDb,
    RetryPolicy,
    RunContext,
    RunFailed,
    RunInput,
    RunOutput,
    UsageError,
    Worker,
)
from pgrun._agents_here import _registry
from pgrun.errors import AttemptError
from pgrun.models.base import ModelResponse
from pgrun.testing import ModelServer

PROMPT = """You count.
- Be brief.
- Be right.
<additional_information>
- Use markdown to format your answers.
</additional_information>
<expected_output>
A number.
</expected_output>
It is Sunday."""
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Sum(BaseModel):
    total: int


def scripted(db: PostgresDb, *answers: str | ModelResponse | AttemptError, **options: Any) -> Agent[Any]:
    """An agent whose model is in this process, with a tool so that its runs come here."""
    return Agent(**{"name": "Face", "model": ScriptedModel(*answers), "tools": [unused], "db": db, **options})


def unused() -> None:
    """Never called."""


def shown(agent: Agent[Any], number: int = 0) -> list[tuple[str, str]]:
    model = agent.definition.model
    assert isinstance(model, ScriptedModel)
    return [(message.role, message.content) for message in model.asked[number].messages]


async def ask(agent: Agent[Any], data: Any = "?", **options: Any) -> Any:
    return await (await agent.arun(data, background=True, **options)).aresult(timeout=10)


async def test_the_prompt_has_all_its_parts(db: PostgresDb) -> None:
    agent = scripted(
        db,
        "fine",
        description="You count.",
        instructions=["Be brief.", "Be right."],
        markdown=True,
        expected_output="A number.",
        additional_context="It is Sunday.",
        dependencies={"currency": "€", "rate": lambda run_context: len(run_context.metadata)},
        add_dependencies_to_context=True,
    )
    async with Worker(db):
        await ask(agent, dependencies={"more": [1]}, metadata={"a": 1})
    assert shown(agent) == [
        (
            "system",
            PROMPT,
        ),
        ("user", '?\n\n<additional context>\n{"currency": "€", "rate": 1, "more": [1]}\n</additional context>'),
    ]


async def test_instructions_may_be_made_when_a_run_begins(db: PostgresDb) -> None:
    async def instructions(run: RunContext, session_state: dict[str, Any], user_id: str | None) -> list[str]:
        return [f"You talk to {user_id}.", f"It is turn {session_state['turn']}, attempt {run.attempt}."]

    agent = scripted(db, "fine", instructions=instructions, user_id="nobody", session_state={"turn": 3}, tools=[])
    assert agent.stored_definition is None  # code does not travel
    async with Worker(db):
        await ask(agent, user_id="Ada")
    assert shown(agent)[0] == ("system", "- You talk to Ada.\n- It is turn 3, attempt 1.")


async def test_tools_find_what_the_run_and_its_agent_were_told(db: PostgresDb, conn: Conn) -> None:
    seen: list[RunContext] = []

    def look(run: RunContext) -> None:
        """Looks."""
        seen.append(run)

    agent = scripted(
        db,
        *(calling(("look", "{}")), "fine") * 2,
        tools=[look],
        user_id="agent's",
        metadata={"a": 1, "b": 1},
        dependencies={"x": 1, "y": 1},
    )
    async with Worker(db):
        await ask(agent)
        await ask(agent, user_id="Ada", metadata={"b": 2}, dependencies={"y": 2})
    assert [each.user_id for each in seen] == ["agent's", "Ada"]
    assert [each.metadata for each in seen] == [{"a": 1, "b": 1}, {"a": 1, "b": 2}]
    assert [each.dependencies for each in seen] == [{"x": 1, "y": 1}, {"x": 1, "y": 2}]
    assert one(conn, "select array_agg(context ->> 'user_id' order by run_id) from pgrun.jobs") == ["agent's", "Ada"]


async def test_hooks_may_change_what_is_asked_and_what_is_answered(db: PostgresDb) -> None:
    def polite(run_input: RunInput) -> None:
        run_input.input_content += " Please."

    async def round_up(run_output: RunOutput[Sum], run: RunContext) -> None:
        assert run_output.content is not None
        run_output.content.total += 1
        run.session_state["seen"] = run_output.tools == []

    agent = scripted(db, '{"total": 3}', pre_hooks=[polite], post_hooks=[round_up], tools=[], output_schema=Sum)
    async with Worker(db):
        assert await ask(agent, "1 and 2?", session_id="s") == Sum(total=4)
    assert shown(agent) == [("user", "1 and 2? Please.")]
    assert await agent.aget_session_state("s") == {"seen": True}


async def test_a_hook_that_is_done_is_not_called_by_the_next_attempt(db: PostgresDb, conn: Conn) -> None:
    called: list[str] = []

    def before(run_input: RunInput) -> None:
        called.append("before")
        run_input.input_content = f"asked {len(called)}"

    def after(run_output: RunOutput[str]) -> None:
        called.append("after")

    def unsure() -> None:
        called.append("unsure")
        if called.count("unsure") == 1:
            raise ModelUnavailable("not now")

    agent = scripted(
        db,
        *("one", "never asked for"),
        **{"pre_hooks": [before], "post_hooks": [after, unsure], "tools": [], "retry": RetryPolicy(base_delay=0)},
    )
    async with Worker(db):
        assert await ask(agent) == "one"
    assert called == ["before", "after", "unsure", "unsure"]
    assert one(conn, "select array_agg(kind || ' ' || name order by step) from pgrun.steps") == [
        *("hook before", "model_call scripted", "hook after", "hook unsure")
    ]


async def test_a_hook_that_raises_ends_the_run_with_its_words(db: PostgresDb) -> None:
    def check(run_input: RunInput) -> None:
        raise ValueError(f"{run_input.input_content} is not asked here")

    def invalid(run_output: RunOutput[Sum]) -> None:
        run_output.content = "many"  # type: ignore[assignment]

    agent = scripted(db, "never asked for", pre_hooks=[check], tools=[])
    late = scripted(db, '{"total": 3}', name="Late", post_hooks=[invalid], tools=[], output_schema=Sum)
    async with Worker(db):
        with pytest.raises(RunFailed, match=r"HookFailed: pre-hook check raised ValueError: Rude is not asked here"):
            await ask(agent, "Rude")
        with pytest.raises(RunFailed, match="OutputInvalid"):
            await ask(late)


async def test_a_parser_gives_the_answer_its_form(db: PostgresDb, conn: Conn) -> None:
    parser = ScriptedModel("three", '{"total": 3}')
    agent = scripted(db, "It is three.", parser_model=parser, output_schema=Sum)
    async with Worker(db):
        assert await ask(agent) == Sum(total=3)
    model = agent.definition.model
    assert isinstance(model, ScriptedModel)
    assert model.asked[0].output is None
    assert parser.asked[0].output is not None
    assert [message.content for message in parser.asked[0].messages][1] == "It is three."
    assert one(conn, "select metrics ->> 'total_tokens' from pgrun.jobs") == str(3 * USAGE.total_tokens)


async def test_what_is_said_while_the_parser_works_is_for_the_first_model(db: PostgresDb) -> None:
    parser = Interrupted('{"total": 3}', '{"total": 4}')
    agent = scripted(db, "It is three.", "It is four.", parser_model=parser, output_schema=Sum)
    async with Worker(db):
        run = await agent.arun("?", background=True)
        parser.meanwhile[0] = lambda: agent.asteer(run.run_id, "One more.")
        assert await run.aresult(timeout=10) == Sum(total=4)
    assert shown(agent, 1) == [("user", "?"), ("assistant", "It is three."), ("user", "One more.")]
    assert [message.content for message in parser.asked[1].messages][1:] == ["It is four."]


async def test_what_is_data_travels_with_the_run(db: PostgresDb, conn: Conn, models: ModelServer) -> None:
    models.script("It is three.", {"total": 3})
    model = OpenAIResponses("gpt-5-mini", base_url=models.base_url, api_key=models.api_key)
    agent = Agent(
        name="Travels",
        model=model,
        parser_model=model,
        use_json_mode=True,
        dependencies={"unit": "km"},
        add_dependencies_to_context=True,
        session_state={"turn": 1},
        add_session_state_to_context=True,
        expected_output="A number.",
        output_schema=Sum,
        db=db,
    )
    run = await agent.arun("How many?", session_state={"user": "Ada"}, session_id="s", background=True)
    _registry.clear()  # as in a daemon, which has never heard of it
    async with Worker(db):
        await until(lambda: row_of(conn, run.run_id)["status"] == "completed")
    said, parsed = [call.body for call in models.calls]
    assert said["input"][0]["content"].endswith('<session_state>\n{"turn": 1, "user": "Ada"}\n</session_state>')
    assert said["input"][1]["content"].endswith('<additional context>\n{"unit": "km"}\n</additional context>')
    assert "text" not in said
    assert parsed["text"] == {"format": {"type": "json_object"}}
    assert "follows this JSON Schema" in parsed["input"][0]["content"]
    assert row_of(conn, run.run_id)["output"] == {"total": 3}


@pytest.mark.parametrize("api", [OpenAIResponses, OpenAIChat])
async def test_images_and_files_are_shown_with_the_input(
    db: PostgresDb, models: ModelServer, api: type[OpenAIResponses | OpenAIChat]
) -> None:
    agent = Agent(name="Sees", model=api("gpt-5-mini", base_url=models.base_url, api_key=models.api_key), db=db)
    images = [Image(url="https://example.org/a.png", detail="low"), Image(content=PNG)]
    async with Worker(db):
        await ask(agent, "What is it?", images=images, files=[File(content=b"%PDF-1", filename="a.pdf")])
    body = models.calls[0].body
    data = "data:image/png;base64,iVBORw0KGgo"
    if api is OpenAIResponses:
        text, first, second, file = body["input"][-1]["content"]
        assert text == {"type": "input_text", "text": "What is it?"}
        assert first == {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"}
        assert second["image_url"].startswith(data)
        pdf = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}
        assert file == {"type": "input_file", **pdf}
    else:
        text, first, second, file = body["messages"][-1]["content"]
        assert text == {"type": "text", "text": "What is it?"}
        assert first == {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
        assert second["image_url"]["url"].startswith(data)
        assert file["file"]["filename"] == "a.pdf"


async def test_what_tools_did_is_remembered_if_it_is_to_be(db: PostgresDb) -> None:
    def look(city: str) -> str:
        """Looks."""
        return f"sun in {city}"

    answers = (calling(("look", '{"city": "Rome"}'), text="I look."), "Sun.", "Yes.")
    options: Any = {"tools": [look], "add_history_to_context": True, "add_tools_to_history": True}
    agent = scripted(db, *answers, **options)
    async with Worker(db):
        await ask(agent, "Rome?", session_id="s")
        await ask(agent, "Sure?", session_id="s")
    assert shown(agent, 2) == [
        *(("user", "Rome?"), ("assistant", "I look."), ("tool", "sun in Rome"), ("assistant", "Sun.")),
        ("user", "Sure?"),
    ]


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({"retries": 0}, RetryPolicy(max_attempts=1, max_delay=1)),
        ({"retries": 2}, RetryPolicy(max_attempts=3, base_delay=1, max_delay=1)),
        ({"retries": 2, "delay_between_retries": 5}, RetryPolicy(max_attempts=3, base_delay=5, max_delay=5)),
        ({"retries": 2, "exponential_backoff": True}, RetryPolicy(max_attempts=3, base_delay=1)),
        ({}, RetryPolicy()),
    ],
)
def test_retries_make_a_policy(options: Any, policy: RetryPolicy) -> None:
    assert Agent(model="gpt-5-mini", **options).definition.retry == policy


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retries": 2, "retry": RetryPolicy()}, "retry= says all of it; leave retries= out"),
        ({"retries": -1}, "retries=-1: how often"),
        ({"instructions": lambda agent: ""}, "instructions <lambda>: nothing is known for its parameter agent"),
        ({"pre_hooks": [lambda run_output: None]}, "pre-hook <lambda>: nothing is known for its parameter run_output"),
        ({"pre_hooks": ["check"]}, "pre-hook: a function, not 'check'"),
        ({"post_hooks": 5}, "post_hooks: a list of functions, not 5"),
        ({"dependencies": {"a": object()}}, "dependencies.a: is of type object"),
        ({"session_state": {"a": "\x00"}}, "session_state.a: contains NUL"),
        ({"session_state": []}, "session_state: a dict"),
        ({"markdown": "yes"}, "markdown: True or False"),
        ({"expected_output": 5}, "expected_output: a text"),
        ({"parser_model": 5}, "model=5: give a model"),
        ({"user_id": ""}, "user_id='': a text"),
        ({"multitask": "maybe"}, "multitask='maybe' is none of"),
        ({"debug_mode": True}, r"no option debug_mode=; use instead of debug_mode= logging.getLogger\('pgrun'\)"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Agent(name="Careful", model="gpt-5-mini", **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"images": [Image()]}, r"images\[0\]: give one of url=, content= and filepath="),
        ({"images": ["a.png"]}, r"images\[0\]: an Image, not 'a.png'"),
        ({"images": Image(url="x")}, "images=.*: a list"),
        ({"images": [Image(content=b"??")]}, r"images\[0\]: say what it is"),
        ({"files": [File(filepath="/nowhere/a.pdf")]}, r"files\[0\]: /nowhere/a.pdf: No such file"),
        ({"files": [File(content=bytes(11_000_000))]}, "images and files: 1100000[0-9] bytes, more than the 10000000"),
        ({"audio": [1]}, "no option audio=.*use instead of audio= OpenAI's"),
        ({"knowledge_filters": {}}, "no option knowledge_filters=.*a tool that searches"),
        ({"dependencies": []}, r"dependencies=\[\]: a dict"),
    ],
)
async def test_a_run_is_refused_what_it_cannot_be_told(db: PostgresDb, conn: Conn, options: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        await Agent(name="Careful", model="gpt-5-mini", db=db).arun("?", background=True, **options)
    assert one(conn, "select count(*) from pgrun.jobs") == 0
