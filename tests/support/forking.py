"""A server that loads its program, and uses it, before it forks: parent and child submit without an event loop."""

import os

from pgrun import PostgresDb

db = PostgresDb(worker="external")


@db.task
def note(who: str) -> str:
    """Says who has submitted it."""
    return who


note.submit("before")
child = os.fork()
if child == 0:
    note.submit("child")
    db.close()
else:
    note.submit("parent")
    _, status = os.waitpid(child, 0)
    note.submit("after")
    raise SystemExit(os.waitstatus_to_exitcode(status))
