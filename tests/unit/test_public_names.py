"""What is public: the names of the package, where programs find them, and what importing them costs."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pgrun
from pgrun import errors


def test_what_is_listed_is_what_a_star_imports() -> None:
    names: dict[str, object] = {}
    exec("from pgrun import *", names)
    assert names.keys() - {"__builtins__"} == set(pgrun.__all__)
    assert len(pgrun.__all__) == len(set(pgrun.__all__))
    assert set(pgrun.__all__) <= set(dir(pgrun))


@pytest.mark.parametrize("name", pgrun.__all__)
def test_a_public_name_stands_for_a_documented_thing_of_that_name(name: str) -> None:
    value = getattr(pgrun, name)
    assert inspect.isclass(value) or (inspect.isfunction(value) and name == "tool")
    assert value.__name__ == name
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}("), "a dataclass without a docstring"


@pytest.mark.parametrize("name", pgrun.__all__)
def test_the_public_methods_of_a_public_class_are_documented(name: str) -> None:
    value = getattr(pgrun, name)
    own = {key: member for key, member in vars(value).items() if inspect.isfunction(member) and not key.startswith("_")}
    assert not [key for key, member in own.items() if not member.__doc__]


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(pgrun.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {(alias.asname, node.module) for node in checked.body for alias in names_in(node)}  # type: ignore[attr-defined]
    assert seen == {(name, pgrun._HOMES.get(name, "pgrun.errors")) for name in pgrun.__all__}


def test_every_error_is_public() -> None:
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert defined <= set(pgrun.__all__)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pgrun.agent", "Agent"),
        ("pgrun.db.postgres", "PostgresDb"),
        ("pgrun.models.openai", "OpenAIResponses"),
        ("pgrun.models.openai", "OpenAIChat"),
        ("pgrun.run.base", "RunStatus"),
    ],
)
def test_programs_that_users_bring_along_find_what_they_import(module: str, name: str) -> None:
    assert getattr(import_module(module), name) is getattr(pgrun, name)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pgrun' has no attribute 'Agnet'"):
        _ = pgrun.Agnet


def test_importing_the_package_imports_no_library() -> None:
    assert not loaded_by("import pgrun") & {"psycopg", "psycopg_pool", "openai", "typer", "pydantic", "anyio"}


def test_declaring_an_agent_does_not_import_openai() -> None:
    loaded = loaded_by("import pgrun.agent; pgrun.agent.Agent(model='gpt-5-mini').stored_definition")
    assert "psycopg" in loaded
    assert not loaded & {"openai", "typer", "httpx", "httpx2"}


def test_naming_the_model_server_imports_no_web_framework() -> None:
    assert not loaded_by("from pgrun.testing import ModelServer; ModelServer()") & {"uvicorn", "starlette", "pydantic"}


def names_in(node: ast.stmt) -> list[ast.alias]:
    assert isinstance(node, ast.ImportFrom)
    return node.names


def loaded_by(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after it ran this program."""
    program += "\nimport sys\nprint(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=15)
    return set(run.stdout.split())
