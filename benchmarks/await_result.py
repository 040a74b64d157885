"""How long a call through the queue takes, from the submit to the start of its handler and to the typed result.

    python benchmarks/await_result.py [--calls 500] [--pause 0.02] [--json FILE] [--database-url URL]

A no-op task in a worker process that is idle otherwise, called one after the other; and after each call the same by the least
that such a queue can be (`_bare.py`): one small table, a worker process and a client, psycopg and nothing else. Both take turns,
so that both see the same machine.
"""

from collections.abc import Sequence

import anyio
from _bare import BareClient, bare_client
from _bench import TASKS, await_workers, database, parser, server, worker
from _figures import quantiles, table, write
from _load import WARM, called, calling

Samples = dict[str, list[Sequence[float]]]


async def take_turns(url: str, calls: int, pause: float, bare: BareClient) -> Samples:
    """Pairs of seconds until start and until result."""
    samples: Samples = {"pgrun": [], "bare": []}
    async with calling(url) as task:
        for number in range(-WARM, calls):
            await anyio.sleep(pause)
            of_pgrun = await called(task)
            await anyio.sleep(pause)  # the second of the two is to find the machine as idle as the first one did
            of_bare = bare.call()
            if number >= 0:
                samples["pgrun"].append(of_pgrun)
                samples["bare"].append(of_bare)
    return samples


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--calls", type=int, default=500)
    made.add_argument("--pause", type=float, default=0.02, help="seconds between calls")
    options = made.parse_args()
    with server(options.database_url) as on:
        with database(on) as url, worker(url, *TASKS), bare_client(url) as bare:
            await_workers(url)
            samples = anyio.run(take_turns, url, options.calls, options.pause, bare)
        found = {
            f"submit → {what}": {who: quantiles([pair[place] for pair in pairs]) for who, pairs in samples.items()}
            for place, what in enumerate(("start", "result"))
        }
        table(
            ["milliseconds", "p50", "p95", "p99", "p50 / bare"],
            {
                f"{what}, {who}": [*figures.values(), figures["p50"] / both["bare"]["p50"]]
                for what, both in found.items()
                for who, figures in both.items()
            },
        )
        write(options.json, on, {"calls": options.calls, "milliseconds": found})


if __name__ == "__main__":
    main()
