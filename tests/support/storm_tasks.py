"""The tasks of a storm: a module, so that worker processes can import it."""

import anyio

from pgrun import PostgresDb, RetryPolicy, Task


def declare(db: PostgresDb) -> Task[[str], str]:
    """An answer like the model's, without one."""

    async def weather(text: str) -> str:
        await anyio.sleep(len(text) % 4 * 0.005)
        return f"answer to {text}"

    return db.task(name="Weather", retry=RetryPolicy(base_delay=0.05))(weather)


declare(PostgresDb("postgresql://localhost/nothing", worker="external"))  # for workers, which bring their own
