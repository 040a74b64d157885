"""A program that submits under keys, one call after the other, and executes nothing.

``python -m support.keyed keep|replace ROUNDS NAME`` shares three keys with everybody else who keeps, or has one of its own
whose runs it replaces. It says which runs it has made, and which it has found.
"""

import asyncio
import json
import sys

from pgrun import PostgresDb, Task
from pgrun.run.terms import OnDuplicate


def declare(db: PostgresDb) -> Task[[int], int]:
    @db.task
    async def count(number: int) -> int:
        return number

    return count


async def main(mode: str, rounds: int, name: str) -> None:
    count = declare(PostgresDb(worker="external"))
    on_duplicate: OnDuplicate = "replace" if mode == "replace" else "keep"
    made, found = list[str](), set[str]()
    for number in range(rounds):
        key = f"shared {number % 3}" if mode == "keep" else name
        run = await count.options(key=key, on_duplicate=on_duplicate).asubmit(number)
        (found.add if run.duplicate else made.append)(run.run_id)
    print("made", json.dumps([made, [*found]]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
