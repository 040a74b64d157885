"""A private Postgres that starts on demand and goes away with its last user: what ``embedded:`` URLs stand for.

The way of a server::

    acquire()  _locks     take boot.lock (one starter at a time), then a share of users.lock, kept while the server is used
               _binaries  find initdb and postgres
               _account   choose the operating-system user that runs them: Postgres refuses to run as root
               _cluster   make the data directory and the socket directory
               _watchdog  a detached process that runs postgres as its child, starts it again after a crash, and stops it
                          when nobody holds users.lock any more
    release()             give up the share; the kernel does it for a process that is killed

What lies in the directory::

    data/           the database; pgrun creates it once and never deletes it
    socket/         where clients connect (under /tmp when this path would be too long for a socket)
    server.log      what postgres and the watchdog say; the previous one is server.log.1 after 10 MB
    boot.lock       held by whoever starts the server
    users.lock      shared by every user
    watchdog.lock   held by the watchdog; contains its process id
    server.lock     held by every process of Postgres (inherited); contains the postmaster's process id
"""

from pgrun.db.embedded._server import EmbeddedPostgres, embedded_url

__all__ = ["EmbeddedPostgres", "embedded_url"]
