"""A harness that measures job queues side by side, with pgrun put into a copy of it as one more peer.

The harness is a directory with ``run.py``, ``peers.py`` (a dict ``PEERS``), ``adapters/`` and ``pgserver.sh``; the homes of the
peers, a virtual environment or node project each, lie in another directory.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pgrun.db.embedded._binaries import find_binaries

_HERE = Path(__file__).parent
_VENV = "venv-pgrun"
_ENTRY: dict[str, Any] = {
    "cmd": ("py", _VENV, "pgrun_.py"),
    "cfg": {"concurrency": 1000},
    "open": "select count(*) from pgrun.jobs where finished_at is null",
    "done": "select count(*) from pgrun.jobs where status = 'completed'",
    "claim": r"pgrun claim_",
    "n": 20_000,
}


@dataclass(frozen=True)
class Harness:
    """A copy of the harness that knows pgrun, and where the peers live."""

    directory: Path
    home: Path

    def available(self) -> list[str]:
        """The peers that can be measured: their homes are there."""
        known = runpy.run_path(str(self.directory / "peers.py"))["PEERS"]
        return [name for name, peer in known.items() if (self.home / peer["cmd"][1]).is_dir()]

    def measure(self, dsn: str, peers: Sequence[str], measure: str, options: Sequence[str]) -> list[dict[str, Any]]:
        """One measure of some peers, once, in this order. What the harness says meanwhile goes to stderr.

        Returns:
            For each peer that did not fail its label, the measure, and the figures by the harness's names.
        """
        found = self.directory / "found.json"
        command = [sys.executable, str(self.directory / "run.py"), "--dsn", dsn, "--home", str(self.home), *options]
        command += ["--peers", ",".join(peers), "--measures", measure, "--rounds", "1", "--out", str(found)]
        # This checkout is measured, whichever the environment of pgrun was made from.
        environment = {**os.environ, "PYTHONPATH": str(_HERE.parent)}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
        return [
            {"label": run["label"], "measure": measure, "figures": _numbers(run["r"])}
            for run in json.loads(found.read_text(encoding="utf-8"))["runs"]
            if "error" not in run["r"]
        ]


@contextmanager
def harness(original: Path, home: Path) -> Iterator[Harness]:
    """A copy with pgrun in it, gone afterwards; makes the virtual environment of pgrun, if there is none."""
    _make_environment(home / _VENV)
    with TemporaryDirectory(prefix="pgrun-peers-") as directory:
        copy = Path(directory)
        for file in original.rglob("*"):  # by content only, for the original may be read-only
            if file.is_file():
                (copy / file.relative_to(original)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy / file.relative_to(original))
        shutil.copyfile(_HERE / "peers_adapter.py", copy / "adapters" / "pgrun_.py")
        with (copy / "peers.py").open("a", encoding="utf-8") as registry:
            registry.write(f'\nPEERS["pgrun"] = {_ENTRY!r}\n')
        yield Harness(copy, home)


@contextmanager
def harness_server(given: str | None, original: Path, home: Path) -> Iterator[str]:
    """URL of the given server, or of the harness's own, which is started if it does not run, and stopped again then."""
    if given:
        yield given
        return
    script = ["bash", str(original / "pgserver.sh")]
    environment = {"PGBIN": str(find_binaries()), **os.environ, "PGBENCH_HOME": str(home)}
    ran_before = subprocess.run([*script, "status"], env=environment, capture_output=True).returncode == 0
    if not ran_before:
        subprocess.run([*script, "start"], env=environment, check=True, stdout=sys.stderr)
    try:
        yield subprocess.check_output([*script, "dsn"], env=environment, text=True).strip()
    finally:
        if not ran_before:
            subprocess.run([*script, "stop"], env=environment, check=True, stdout=sys.stderr)


def split_peers(text: str) -> list[str]:
    """Names separated by commas, as the harness reads them: ``rawpy,pgqueuer:batch_size=1,watch_debounce=0.001``."""
    return re.split(r",(?=[a-z0-9]+(?::|,|$))", text)


def _make_environment(directory: Path) -> None:
    python = directory / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        package = f"{_HERE.parent}[fast]"
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--editable", package], check=True)


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: figure for name, figure in figures.items() if isinstance(figure, int | float)}
