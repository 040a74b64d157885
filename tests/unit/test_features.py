"""The table of features: every test that it names is there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "features.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
LINK = re.compile(r'\[([^]]+)\]\((\.\./tests/[^ )]+)(?: "(test_\w+)")?\)')


@pytest.mark.parametrize("path", sorted({path for _, path, _ in LINK.findall(TEXT)}))
def test_a_file_that_is_named_is_there_with_the_tests_that_are_named(path: str) -> None:
    source = (PAGE.parent / path).read_text(encoding="utf-8")
    named = {test for _, where, test in LINK.findall(TEXT) if where == path and test}
    assert named <= set(re.findall(r"def (test_\w+)\(", source))


def test_whatever_pgrun_is_said_to_do_has_a_test() -> None:
    ours = [(row[0], row[1]) for row in ROWS if len(row) == 8 and row[1] not in ("pgrun", "---")]
    assert len(ours) > 50
    assert [what for what, said in ours if said != "no" and not LINK.fullmatch(said)] == []


def test_complaints_have_tests() -> None:
    complaints = [row for row in ROWS if len(row) == 3 and row[0] not in ("complaint", "---")]
    assert len(complaints) >= 10
    assert [row[0] for row in complaints if not LINK.search(row[2])] == []


def test_the_short_table_of_the_front_page_says_the_same() -> None:
    readme = PAGE.parents[1] / "README.md"
    links = re.findall(r"\[[^]]+\]\(((?:tests|docs|sql|benchmarks)/[^)#]+)", readme.read_text(encoding="utf-8"))
    assert {link for link in links if not (readme.parent / link).exists()} == set()
    assert {f"../{link}" for link in links if link.startswith("tests/")} <= {path for _, path, _ in LINK.findall(TEXT)}
