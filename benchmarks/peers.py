"""pgrun beside other queues, measured by a harness that is no part of this project; README.md says what it has to look like.

    python benchmarks/peers.py --harness DIR --home DIR [--peers pgrun,rawpy,…] [--measures drain1,await,…] [--rounds 5]
                               [--json FILE] [--database-url URL] [options of the harness's run.py]

Takes one measure of all peers at a time, in turns that begin with another peer each round, and writes the file after each.
What is in the file already is not measured again, so a run that was interrupted goes on, and --measures or --peers can be added
later. Without --database-url it uses the server of the harness (pgserver.sh). Prints the median, the least and the most of each
figure, and the ratio of pgrun's to it: more is better for runs per second, less for milliseconds.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from _bench import parser
from _figures import table, write
from _harness import harness, harness_server, split_peers

FIGURES = {
    "seq": {"rate": "runs/s"},
    "bulk": {"rate": "runs/s"},
    "drain1": {"rate": "runs/s", "wcpu_10k": "CPU s of workers per 10k", "scpu_10k": "CPU s of server per 10k"},
    "drain2": {"rate": "runs/s"},
    "latency": {"p50": "p50, ms", "p99": "p99, ms"},
    "await": {"p50": "p50, ms", "p99": "p99, ms"},
    "load": {"p50": "p50, ms", "p99": "p99, ms"},
    "sustain": {"rate": "runs/s", "p99": "p99, ms"},
    "sustain100": {"rate": "runs/s", "p99": "p99, ms"},
    "idle": {"tps": "transactions/s"},
    "bloat": {"before": "runs/s before", "held_last": "runs/s while held", "ratio": "held / before"},
}
"""By measure: the figures of the harness, and what they are called here."""

Runs = Sequence[Mapping[str, Any]]
Summary = dict[str, dict[str, dict[str, float]]]


def known_runs(path: str | None, options: Sequence[str]) -> list[dict[str, Any]]:
    """What the file has already."""
    if path is None or not Path(path).exists():
        return []
    kept = json.loads(Path(path).read_text(encoding="utf-8"))
    if kept["options"] != list(options):
        sys.exit(
            f"{path} was measured with {kept['options'] or 'no options'}; go on with them, or write to another file"
        )
    found: list[dict[str, Any]] = kept["runs"]
    return found


def missing(runs: Runs, peers: Sequence[str], measure: str, number: int) -> list[str]:
    """The peers whose measure is not there for this round, in the order in which it is their turn."""
    there = {run["label"] for run in runs if (run["measure"], run["round"]) == (measure, number)}
    first = number % len(peers)
    return [peer for peer in [*peers[first:], *peers[:first]] if peer not in there]


def summary(runs: Runs) -> Summary:
    """Median, least and most by figure and peer."""
    found: Summary = {}
    for measure, names in FIGURES.items():
        for key, name in names.items():
            values: dict[str, list[float]] = {}
            for run in runs:
                if run["measure"] == measure and key in run["figures"]:
                    values.setdefault(run["label"], []).append(run["figures"][key])
            if values:
                found[f"{measure} {name}"] = {
                    label: {
                        "median": round(median(some), 3),
                        "min": round(min(some), 3),
                        "max": round(max(some), 3),
                    }
                    for label, some in values.items()
                }
    return found


def show(found: Summary) -> None:
    """Prints one table."""
    rows = {}
    for figure, labels in found.items():
        ours = labels.get("pgrun", {}).get("median")
        for label, values in labels.items():
            ratio = ours / values["median"] if ours is not None and values["median"] else ""
            rows[f"{figure}: {label}"] = [values["median"], values["min"], values["max"], ratio]
    table(["figure: peer", "median", "least", "most", "pgrun / it"], rows)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--harness", type=Path, required=True)
    made.add_argument("--home", type=Path, required=True, help="where the peers live")
    made.add_argument("--peers", type=split_peers, help="default: all that live there")
    made.add_argument("--measures", default="seq,bulk,drain1,drain2,latency,await,load,sustain,sustain100")
    made.add_argument("--rounds", type=int, default=5)
    options, others = made.parse_known_args()
    runs = known_runs(options.json, others)
    with (
        harness(options.harness, options.home) as rivals,
        harness_server(options.database_url, options.harness, options.home) as dsn,
    ):
        peers = options.peers or rivals.available()
        for number in range(options.rounds):
            for measure in options.measures.split(","):
                if wanted := missing(runs, peers, measure, number):
                    runs += [{"round": number, **run} for run in rivals.measure(dsn, wanted, measure, others)]
                    write(options.json, dsn, {"options": others, "figures": summary(runs), "runs": runs})
    show(summary(runs))


if __name__ == "__main__":
    main()
