"""The schedules that code declares: kept in this process until a worker that has imported them writes them."""

from typing import NamedTuple

from pgrun.db.connected import Connects
from pgrun.db.planning import Target
from pgrun.db.records import NewSchedule
from pgrun.errors import UsageError


class Declared(NamedTuple):
    """A schedule that code has declared, and through which database."""

    db: Connects
    target: Target
    new: NewSchedule


_declared: dict[str, Declared] = {}


def declared_schedules() -> dict[str, Declared]:
    """The schedules that this process has declared, by name."""
    return _declared


def declare(declared: Declared) -> None:
    """Keeps one.

    Raises:
        UsageError: Another one of that name was declared.
    """
    name = declared.new.schedule
    if (known := _declared.get(name)) and known.new != declared.new:
        raise UsageError(f'schedule "{name}" is declared already; give this one another name=')
    _declared[name] = declared


async def write_declared(db: Connects, *, all_of_them: bool) -> None:
    """Writes what this process has declared in its code: all of it, for a daemon with a database of its own, or that of `db`."""
    verbs = await db._verbs()
    for declared in [*_declared.values()]:
        if all_of_them or declared.db is db:
            await make_known(db, declared.target)
            await verbs.declare_schedule(declared.new)


async def make_known(db: Connects, target: Target | str) -> None:
    """Makes an agent known in the database, for workers that have not imported it; and runs of its name are an agent's."""
    if declare := getattr(target, "adeclare", None):
        await declare(db)
