"""What users install: the wheel has everything, and works in an environment that has nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(_ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_carries_every_sql_file_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    in_checkout = {f"pgrun/{path.relative_to(_ROOT)}" for path in (_ROOT / "sql").rglob("*.sql")}
    assert in_checkout <= set(names)
    assert "pgrun/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_the_installed_wheel_finds_its_sql(wheel: Path, tmp_path: Path) -> None:
    """Without the checkout on the path: unpacked as pip does it, beside the dependencies of this environment."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import pgrun; from pgrun.db.statements import statement, sql_dir; from pgrun.db.migrations import newest\n"
        f"assert pgrun.__file__.startswith({str(tmp_path)!r}), pgrun.__file__\n"
        f"assert str(sql_dir()).startswith({str(tmp_path)!r})\n"
        "print(newest(), len(statement('claim_runs', 'pgrun')) > 0)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert found.stdout.split()[1] == "True"
