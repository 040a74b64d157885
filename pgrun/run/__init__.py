"""One run: its status, its turns with the model, its output. Nothing here knows a database."""

from pgrun.run.context import RunContext as RunContext
