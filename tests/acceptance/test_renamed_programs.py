"""Programs written for agno, the way its users write background runs: they run after replacing its name, and the database."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.database import Conn
from support.processes import Process, Processes
from support.tables import one

from pgrun.testing import ModelServer, Usage, hang, reply, tool_call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

_PROGRAMS = Path(__file__).parent / "programs"

Start = Callable[[str], Process]


@pytest.fixture
def start_at(dsn: str, tmp_path: Path) -> Iterator[Callable[[ModelServer], Start]]:
    """Gives what starts one of the programs with a model server, alone: no daemon serves."""
    with ExitStack() as stack:

        def at(models: ModelServer) -> Start:
            processes = stack.enter_context(Processes(dsn, models.environ))

            def program(name: str) -> Process:
                text = (_PROGRAMS / f"{name}.txt").read_text(encoding="utf-8")
                path = tmp_path / f"{name}.py"
                path.write_text(re.sub(r"\bagno\.", "pgrun.", re.sub(r"postgresql\+psycopg://[^\"]*", dsn, text)))
                return processes.script(path)

            return program

        yield at


@pytest.fixture
def start(models: ModelServer, start_at: Callable[[ModelServer], Start]) -> Start:
    """Starts one of the programs."""
    return start_at(models)


async def output_of(process: Process) -> list[str]:
    assert await process.ends(within=40) == 0, process
    return process.output.splitlines()


async def test_polling_and_cancelling(start: Start, models: ModelServer) -> None:
    models.script("Paris.")
    models.always(hang(), match="essay")
    assert await output_of(start("polling")) == [
        *("polled: Paris.", "cancel says True", "while running: True", "before it starts: True")
    ]
    assert [call.outcome for call in models.calls][:1] == ["answered"]
    assert {call.outcome for call in models.calls[1:]} <= {"aborted"}  # none, if it was cancelled before it asked


async def test_a_limit_of_runs_at_once(start: Start, models: ModelServer) -> None:
    models.delay = 0.3
    assert await output_of(start("concurrency")) == ["at most 2 at once, 5 ended"]


async def test_tools_and_metrics(start: Start, models: ModelServer) -> None:
    models.script(
        reply(calls=[tool_call("stock_price", {"symbol": "AAPL"})], usage=Usage(10, 5)),
        reply("7 dollars.", usage=Usage(20, 6)),
    )
    assert await output_of(start("metrics")) == ["content: 7 dollars.", "tokens: 30 11 41", "took time: True"]
    assert models.calls[0].body["messages"][0]["content"].startswith("Look prices up.\n<additional_information>")


async def test_what_agents_and_runs_are_told(start: Start, models: ModelServer, conn: Conn) -> None:
    models.script(reply(calls=[tool_call("add_item", {"item": "milk"})]), "Done.")
    assert await output_of(start("shopping")) == [
        *("content: Done.", "state: {'shopping_list': ['milk']}", "refused: True")
    ]
    system, user = models.calls[0].body["input"]
    assert system["content"].startswith("You keep the shopping list of Ada.\n<session_state>")
    text, image = user["content"]
    assert text["text"].endswith('{"shop": "corner", "day": "Monday"}\n</additional context>')
    assert image["image_url"] == "https://example.org/fridge.png"
    assert one(conn, "select distinct metadata from pgrun.jobs") == {"team": "kitchen"}


async def test_cancelling_from_another_process(start: Start, models: ModelServer) -> None:
    models.always(hang(), match="essay")
    said = await output_of(start("cancel_elsewhere"))
    assert sorted(said) == ["another process cancels: True", "the worker saw: True"]
    assert {call.outcome for call in models.calls} <= {"aborted"}  # or it was stopped before it asked


async def test_a_stream_that_is_read_on_after_a_disconnect(start: Start, models: ModelServer) -> None:
    models.script(reply("Roses are red, violets are blue.", deltas=8, interval=0.05))
    assert await output_of(start("streaming_resume")) == [
        *("disconnected in the middle", "without a gap: True"),
        *(f"{what}: Roses are red, violets are blue." for what in ("all that was said", "content")),
    ]


async def test_a_run_that_goes_on_after_its_process_was_killed(start: Start, models: ModelServer, conn: Conn) -> None:
    models.script(reply(calls=[tool_call("search", {"query": "news"})]), hang(), "Nothing.")
    crashes = start("crash_recovery")
    await models.await_for_calls(2, timeout=20)
    crashes.kill()
    assert crashes.output.splitlines() == ["searching news"]
    conn.execute("update pgrun.workers set lease_until = now() - interval '1 s', lease = interval '1 ms'")
    said = await output_of(start("crash_recovery"))
    assert [line for line in said if not line.startswith("rescued")] == [  # a warning of the log
        *("found it running: True", "the same run: True, True", "content: Nothing.")
    ]
    assert models.paid == 2
    assert models.calls[2].body["input"] == models.calls[1].body["input"]


@pytest.mark.soak
async def test_a_confirmation_in_another_process(start: Start, models: ModelServer) -> None:
    models.script(reply(calls=[tool_call("refund", {"order": 7})]), "Your money is on its way.")
    assert await output_of(start("confirm_elsewhere")) == [
        *("waits for ['refund']", "paying back order 7", "content: Your money is on its way.")
    ]


@pytest.mark.soak
async def test_runs_of_one_session_that_remember_each_other(start: Start, models: ModelServer) -> None:
    models.script("Hello Ada.", "Ada.", "Sure.")
    assert await output_of(start("one_session")) == [
        *("answered: Hello Ada.", "answered: Ada.", "answered: Sure.", "in order: True")
    ]
    assert [item["content"] for item in models.calls[2].body["input"]] == [
        *("I am Ada.", "Hello Ada.", "Who am I?", "Ada.", "Sure?")
    ]


async def test_an_answer_in_the_background_of_the_provider(
    provider: ModelServer, start_at: Callable[[ModelServer], Start]
) -> None:
    provider.script("Scattering.")
    assert await output_of(start_at(provider)("provider_background")) == ["content: Scattering."]
    assert provider.calls[0].body["background"] is True
