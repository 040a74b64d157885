"""Two programs that users bring along, printed for other packages: they run after replacing nothing but the package's name.

They expect Postgres on localhost:5532 with user, password and database `ai`. A proxy stands there for the test's server.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from support.netfault import Proxy
from support.processes import Process, Processes

from pgrun.testing import ModelServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

_SEEDS = Path(__file__).parent / "seeds"
_URL = "postgresql://ai:ai@localhost:5532/ai"


def _program(document: str) -> list[str]:
    """The lines of the program in a web page that was saved as text; without the line numbers that some pages print."""
    lines = document.splitlines()
    if any(line.startswith('1"""') for line in lines):
        return [line.removeprefix(str(number)) for number, line in enumerate(_numbered(lines), start=1)]
    begin, end = lines.index('"""'), lines.index("Run the Example")
    return lines[begin:end]


def _numbered(lines: list[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if re.match(rf"{len(found) + 1}(?!\d)", line):
            found.append(line)
    return found


def agno() -> str:
    """The program as it is printed."""
    return "\n".join(_program((_SEEDS / "agno_background_execution_structured.txt").read_text()))


def kern() -> str:
    """The same program in a page that has lost its indentation: each line gets that of its model in the other page."""
    models = agno().splitlines()
    lines = _program((_SEEDS / "kern_background_execution_structured.txt").read_text())
    return "\n".join(_indentation(model) + line.strip() for model, line in zip(models, lines, strict=True))


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture(scope="module")
def everything(server: str) -> Iterator[str]:
    """The database that the programs expect, at the address they expect; returns another way to it."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create role ai login password 'ai'")
        admin.execute("create database ai owner ai")
    with Proxy(make_conninfo(server, dbname="ai"), port=5532):
        yield make_conninfo(server, dbname="ai")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("drop database ai with (force)")
        admin.execute("drop role ai")


@pytest.fixture
def processes(everything: str, models: ModelServer) -> Iterator[Processes]:
    with psycopg.connect(everything, autocommit=True) as conn:
        conn.execute("drop schema if exists pgrun cascade")
    # The proxy knows no encryption, which these two would ask for first.
    with Processes(_URL, {**models.environ, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}) as started:
        yield started


@pytest.fixture(params=[agno, kern], ids=["agno", "kern"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """One of the programs, with only the name of the package replaced."""
    path = tmp_path / "program.py"
    path.write_text(re.sub(r"\b(agno|kern)\.", "pgrun.", request.param()))
    return path


async def test_the_program_runs_alone(
    program: Path, processes: Processes, models: ModelServer, everything: str
) -> None:
    run = processes.script(program)
    assert await run.ends(within=30) == 0, run
    _everything_is_printed(run)
    assert _workers(everything) == {"embedded"}
    assert len(models.calls) == 4


async def test_a_worker_without_its_code_does_the_work_if_there_is_one(
    program: Path, processes: Processes, models: ModelServer, everything: str
) -> None:
    worker = processes.worker()
    await worker.ready()
    run = processes.script(program)
    assert await run.ends(within=30) == 0, run
    _everything_is_printed(run)
    assert _workers(everything) == {"daemon"}
    assert len(models.calls) == 4


def _everything_is_printed(run: Process) -> None:
    output = "\n".join(line.strip() for line in run.output.splitlines())
    for line in (
        "Background Execution with Structured Output",
        r"Run ID: [0-9a-f-]{36}",
        r"Status: pending",
        "Polling for completion...",
        r"\[\d+s\] Status: completed",
        "Completed! Structured output:",
        "Tokyo, .+",
        "Paris, .+",
        "New York, .+",
        "Population: .+",
        "Fun fact: .+",
        "Multiple Concurrent Background Runs",
        r"Launched: [0-9a-f-]{36} - What is the tallest mountain in the world\? Answer \.\.\.",
        "Waiting for all runs to complete...",
        "Completed 3/3 runs:",
        "Q: What is the longest river in the world",
        "A: .+longest river.+",
        "Status: completed",
        "All examples completed!",
    ):
        assert re.search(f"^{line}", output, re.MULTILINE), f"{line!r} is missing in\n{output}"
    assert "Traceback" not in output
    assert output.count("Fun fact: ") == 3


def _workers(dsn: str) -> set[str]:
    """The kinds of worker that have executed runs."""
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select w.mode from pgrun.jobs j join pgrun.workers w using (worker_id)").fetchall()
    assert len(rows) == 4
    return {mode for (mode,) in rows}


def test_both_documents_print_the_same_program() -> None:
    """But for the white space that one of them lost, also within its texts."""
    assert _words(kern()) == _words(agno().replace("agno", "kern"))
    compile(kern(), "kern.py", "exec")
