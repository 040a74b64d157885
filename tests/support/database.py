"""The type of the plain connection that tests look at tables with."""

from typing import Any

import psycopg

Conn = psycopg.Connection[dict[str, Any]]
