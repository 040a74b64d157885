"""``python -m pgrun`` is the command `pgrun`."""

from pgrun.cli.app import main

main()
