"""A task that goes step by step; a worker gets it by ``--import support.journey_task``."""

from pathlib import Path

import anyio

from pgrun import PostgresDb, Task, TaskContext


def write(notes: str, line: str) -> None:
    """Adds a line to a file."""
    with Path(notes).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read(notes: str) -> list[str]:
    """Its lines."""
    return Path(notes).read_text(encoding="utf-8").split()


def declare(db: PostgresDb) -> Task[[str], list[str]]:
    """Notes each step in a file, and stays after the first in its first attempt."""

    async def journey(ctx: TaskContext, notes: str) -> list[str]:
        await ctx.step("note", write, notes, "one")
        if ctx.attempt == 1:
            await anyio.sleep(60)
        await ctx.sleep(0.01)
        await ctx.step("note", write, notes, "two")
        return await ctx.step("read", read, notes)

    return db.task(name="Journey")(journey)


declare(PostgresDb("postgresql://localhost/nothing", worker="external"))  # for workers, which bring their own
