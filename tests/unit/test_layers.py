"""The layers: a module imports from its own layer and from lower ones, and the two halves of layer 2 do not know each other."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pgrun

PACKAGE = Path(pgrun.__file__).parent

LAYERS: dict[str, int] = {
    **dict.fromkeys(
        (
            "errors",
            "settings",
            "events",
            "_calling",
            "_context",
            "_hosting",
            "_ids",
            "_jitter",
            "_durations",
            "_threads",
            "_sync",
        ),
        0,
    ),
    **dict.fromkeys(("run.base", "run.event", "run.requirement", "run.terms", "models.base", "retry", "schedule"), 1),
    "verdict": 0,
    **dict.fromkeys(("run.abandon", "run.metrics", "run.progress", "run.task_context"), 1),
    **dict.fromkeys(("run", "models", "db"), 2),
    **dict.fromkeys(("_task_execution", "_task_process", "tools", "media"), 3),
    **dict.fromkeys(
        (
            *("agent", "_agent_asks", "_agent_decides", "_agent_declared", "_agent_looks", "_agent_options"),
            *("_agent_runs", "_agent_talks", "_agents_here", "_reaching", "_stopping", "streaming", "task"),
        ),
        3,
    ),
    "worker": 4,
    **dict.fromkeys(("cli", "testing", "__main__", ""), 5),
}
"""A module has the layer of the longest name here that it begins with; "" is the package's face."""

UPWARDS = {("db.tasks", "task"): "for type checkers: db.task() makes what users declare"}
"""Imports from a higher layer that are never executed."""

HALVES = {"run": "agents", "models": "agents", "db": "queue"}

DYNAMIC = {
    "": "the face imports what is public when it is first used",
    "models.base": "load_model finds the class of a provider by the name that is stored with a run",
    "_task_process": "the process of a task finds its function",
    "cli.operate": "pgrun worker --import",
    "testing": "the model server loads without the queue",
    "testing.pattern": "re's own parser, which type checkers do not know",
}
"""The modules that import others by name, where this test cannot follow them."""


@dataclass(frozen=True)
class Import:
    """One import statement's target; `lazy` if it runs in a function only, or never."""

    importer: str
    target: str
    lazy: bool


def test_a_module_imports_only_from_its_own_layer_and_below() -> None:
    wrong = [each for each in inside() if layer_of(each.target) > layer_of(each.importer)]
    assert {(each.importer, each.target) for each in wrong} == UPWARDS.keys()
    assert all(each.lazy for each in wrong)


def test_the_queue_knows_no_model_and_the_agents_know_no_database() -> None:
    second = [each for each in inside() if layer_of(each.importer) == layer_of(each.target) == 2]
    assert len(second) > 20
    assert not [each for each in second if half_of(each.importer) != half_of(each.target)]


def test_the_model_server_for_tests_stands_alone() -> None:
    about_the_queue = ("testing.runs", "testing.sync")
    server = [
        each for each in inside() if each.importer.split(".")[0] == "testing" and each.importer not in about_the_queue
    ]
    used = {each.target for each in server if not (each.importer == "testing" and each.target in about_the_queue)}
    assert {name for name in used if name.split(".")[0] != "testing"} == {"errors"}


def test_no_import_closes_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for each in inside():
        if (each.importer, each.target) in UPWARDS:
            continue
        graph.setdefault(each.importer, set()).add(each.target)
    TopologicalSorter(graph).prepare()


def test_the_database_driver_is_imported_in_db_only() -> None:
    users = {each.importer.split(".")[0] for each in imports() if each.target in ("psycopg", "psycopg_pool")}
    assert users == {"db"}


def test_openai_is_imported_in_models_only_and_never_at_the_start() -> None:
    found = [each for each in imports() if each.target == "openai"]
    assert {each.importer.split(".")[0] for each in found} == {"models"}
    assert all(each.lazy for each in found)


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("typer", "cli"),
        ("uvicorn", "testing"),
        ("starlette", "testing"),
        ("docstring_parser", "run"),
        ("cronsim", "schedule"),
    ],
)
def test_a_library_of_one_package_is_imported_nowhere_else(library: str, package: str) -> None:
    assert {each.importer.split(".")[0] for each in imports() if each.target == library} == {package}


def test_modules_that_import_others_by_name_are_known() -> None:
    found = {name for name, tree in modules().items() if any(is_dynamic(node) for node in ast.walk(tree))}
    assert found == DYNAMIC.keys()


def layer_of(module: str) -> int:
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in LAYERS:
            return LAYERS[name]
    raise AssertionError(f"pgrun.{module} belongs to no layer: give it one in LAYERS")


def half_of(module: str) -> str:
    return HALVES[module.split(".")[0]]


def inside() -> list[Import]:
    """The imports of one module of pgrun by another."""
    return [
        Import(each.importer, each.target.removeprefix("pgrun").removeprefix("."), each.lazy)
        for each in imports()
        if each.target.split(".")[0] == "pgrun"
    ]


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without "pgrun.", parsed."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def imports() -> list[Import]:
    return [each for name, tree in modules().items() for each in imports_of(name, tree, lazy=False)]


def imports_of(importer: str, node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    match node:
        case ast.Import():
            for alias in node.names:
                yield Import(importer, known_part(alias.name), lazy)
        case ast.ImportFrom():
            assert node.level == 0, f"pgrun.{importer}: imports are absolute here"
            for alias in node.names:
                yield Import(importer, known_part(f"{node.module}.{alias.name}"), lazy)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.If(test=ast.Name("TYPE_CHECKING")):
            lazy = True
    for child in ast.iter_child_nodes(node):
        yield from imports_of(importer, child, lazy=lazy)


def known_part(dotted: str) -> str:
    """The module that is imported: of pgrun the longest part that is one, of others the top."""
    top, _, rest = dotted.partition(".")
    if top != "pgrun":
        return top
    while rest not in modules():
        rest = rest.rpartition(".")[0]
    return f"pgrun.{rest}" if rest else "pgrun"


def is_dynamic(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and "import_module" in (
        getattr(node, "id", ""),
        getattr(node, "attr", ""),
    )
