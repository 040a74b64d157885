"""A model server as a process, for trying an agent by hand: ``python -m pgrun.testing --port 4010 --delay 0.5``.

It prints the base URL and answers every call with something made up for it, until SIGINT or SIGTERM.
"""

import argparse
import signal
import sys

from pgrun.errors import UsageError
from pgrun.testing.server import ModelServer


def main() -> int:
    """Serve until a signal comes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pgrun.testing", description="A made-up model for testing agents.")
    parser.add_argument("--port", type=int, default=0, help="where to listen (default: a free port)")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer begins (default: 0)")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two pieces of it (default: 0)")
    options = parser.parse_args()
    # Blocked here and therefore in the server's thread too, the signals wait for sigwait to take them.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with ModelServer(port=options.port, delay=options.delay, interval=options.interval) as server:
            sys.stdout.write(f"{server.base_url}\n")
            sys.stdout.flush()
            signal.sigwait(signals)
    except (UsageError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
