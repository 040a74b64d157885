"""Stands before the real one on the path of a process that is to run as if it were not installed."""

raise ImportError("uvloop is not installed")
