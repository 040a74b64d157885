"""A module that raises when it is imported; a worker gets it by ``--import support.raising_import``."""

raise RuntimeError("this module cannot be imported")
