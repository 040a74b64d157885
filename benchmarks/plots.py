"""Draws the figures in results/*.json as bars, results/*.svg, and prints the lines that show them in a README.

    python benchmarks/plots.py [DIRECTORY]

A file is drawn if it has the name of its benchmark: results/backlog.json is what ``backlog.py --json`` has written.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from _svg import Bar, Chart

MORE, LESS = "more is better", "less is better"
Found = Mapping[str, Any]


def latency(found: Found) -> Iterable[Chart]:
    bars = [Bar(name, figures["p50"], "raw" not in name) for name, figures in found["milliseconds"].items()]
    yield Chart("latency", "What pgrun adds to the time a model takes", f"p50 in milliseconds, {LESS}", bars)


def throughput(found: Found) -> Iterable[Chart]:
    bars = [Bar(name, rate / found["bare"][name]) for name, rate in found["pgrun"].items()]
    yield Chart("throughput", "Rates beside the bare statements", f"1 is as fast as these, {MORE}", bars)


def await_result(found: Found) -> Iterable[Chart]:
    bars = [
        Bar(f"{what}, {who}", figures["p50"], who == "pgrun")
        for what, both in found["milliseconds"].items()
        for who, figures in both.items()
    ]
    yield Chart("await_result", "A call through the queue, beside a bare queue", f"p50 in milliseconds, {LESS}", bars)


def old_snapshot(found: Found) -> Iterable[Chart]:
    bars = [Bar(f"{name} an old snapshot", found[name]["all"], name == "with") for name in ("without", "with")]
    yield Chart("old_snapshot", "A drain beside a forgotten transaction", f"runs per second, {MORE}", bars)


def notify_contention(found: Found) -> Iterable[Chart]:
    bars = [Bar(name, rate, not name.startswith("plain")) for name, rate in found["submits per second"].items()]
    title = f"{found['clients']} clients submit at once"
    yield Chart("notify_contention", title, f"submits per second, {MORE}", bars)


def backlog(found: Found) -> Iterable[Chart]:
    ratios = {name: case["ratio"] for name, case in found["cases"].items()}
    drain = [Bar("nothing", 1, False), *(Bar(name, ratio["drain"]) for name, ratio in ratios.items())]
    start = [Bar("nothing", 1, False), *(Bar(name, ratio["p50"]) for name, ratio in ratios.items())]
    yield Chart("backlog-drain", "How fast runs drain beside a backlog", f"rate to an empty table, {MORE}", drain)
    yield Chart("backlog-start", "How soon a run starts beside a backlog", f"p50 to an empty table, {LESS}", start)


def many_queues(found: Found) -> Iterable[Chart]:
    drain = [Bar(name, case["drain"]) for name, case in found["cases"].items()]
    start = [Bar(name, case["p50"]) for name, case in found["cases"].items()]
    yield Chart("many_queues-drain", "One worker, many queues: drain", f"runs per second, {MORE}", drain)
    yield Chart("many_queues-start", "One worker, many queues: submit → start", f"p50 in milliseconds, {LESS}", start)


def memory(found: Found) -> Iterable[Chart]:
    bars = [
        Bar(f"{int(count):,} {what}", size / 1e6)
        for what in ("sleeping runs", "waiters")
        for count, size in found[what]["resident bytes"].items()
    ]
    yield Chart("memory", "Memory of a process with so many", f"resident megabytes, {LESS}", bars)


def peers(found: Found) -> Iterable[Chart]:
    for figure, labels in found["figures"].items():
        less = figure.endswith(", ms")
        ordered = sorted(labels.items(), key=lambda peer: peer[1]["median"], reverse=not less)
        bars = [Bar(label, values["median"], label == "pgrun") for label, values in ordered]
        name = "peers-" + re.sub(r"[^a-z0-9]+", "-", figure.lower().replace("/", " per ")).strip("-")
        yield Chart(name, f"Beside other queues: {figure}", f"medians, {LESS if less else MORE}", bars)


CHARTS: Mapping[str, Callable[[Found], Iterable[Chart]]] = {
    made.__name__: made
    for made in (
        latency,
        throughput,
        await_result,
        old_snapshot,
        notify_contention,
        backlog,
        many_queues,
        memory,
        peers,
    )
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("directory", nargs="?", type=Path, default=Path(__file__).parent / "results")
    directory = made.parse_args().directory
    for name, charts in CHARTS.items():
        if (directory / f"{name}.json").exists():
            found = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
            for chart in charts(found):
                (directory / f"{chart.name}.svg").write_text(chart.svg(), encoding="utf-8")
                print(f"![{chart.title}](results/{chart.name}.svg)")


if __name__ == "__main__":
    main()
