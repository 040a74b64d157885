"""One run: its status, its turns with the model, its output. Nothing here knows a database."""
