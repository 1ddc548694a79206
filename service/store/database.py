"""Connecting: one engine for each process, its transactions, and SQLite's settings for several processes."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from psycopg.errors import DiskFull
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.orm import Session

from service.store.tallies import write_tallies

SQLITE_BUSY_SECONDS: Final = 30  # for which a writer waits for another writer
_SNAPSHOT: Final = "REPEATABLE READ"  # of PostgreSQL; SQLite always reads a snapshot
_WRITES: Final = "occluscope_writes"
_SQLITE_PRIMARY: Final = 0xFF  # of an extended error code
_SQLITE_OUTAGES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_POSTGRESQL_OUTAGES: Final = (  # beginnings of SQLSTATE codes of errors that no statement caused
    *("08", "57P"),  # connection errors; a server that stops or starts
    *("40", "55P03"),  # cancelled in favour of another transaction; a lock that was not available
    *("53100", "53300"),  # disk full; too many connections
)
_POSTGRESQL: Final = {  # a server that stops answering is an error within seconds, not only when TCP times out
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}


class Database:
    """The store's connection pool.

    >>> with Database(url).writing() as session:  # doctest: +SKIP
    ...     submit_job(session, …)
    """

    def __init__(self, url: str) -> None:
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        if file := sqlite_file(url):
            _make_private_file(file)
        options: dict[str, Any] = (
            {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}}
            if self.is_sqlite
            else {"pool_pre_ping": True, "connect_args": _POSTGRESQL}
        )
        self._turn = threading.Lock() if self.is_sqlite else nullcontext()
        self.engine: Engine = create_engine(url, hide_parameters=True, **options)  # errors are logged
        self._snapshots = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level=_SNAPSHOT)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads; all that it reads is of one moment, that of its first query."""
        with Session(self._snapshots) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that writes: commits at the end, rolls back on any error.

        On SQLite it takes the write lock at the beginning, so that it never fails halfway because of another writer.
        The threads of a process queue for it, since SQLite itself only retries after growing pauses.
        """
        engine = self.engine.execution_options(**{_WRITES: True})
        with self._turn, Session(engine) as session, session.begin():
            yield session
            write_tallies(session)

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def is_disk_full(error: DBAPIError) -> bool:
    """Whether the database refused to write because no space is left; then nothing was written."""
    return isinstance(error.orig, DiskFull) or getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def is_outage(error: DBAPIError) -> bool:
    """Whether the database is unreachable, locked, restarting or full: retrying can help, and no statement is wrong."""
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & _SQLITE_PRIMARY in _SQLITE_OUTAGES
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(_POSTGRESQL_OUTAGES)  # None if no server answered


def now() -> datetime:
    """The present moment, UTC."""
    return datetime.now(UTC)


def clock(session: Session) -> datetime:
    """The present moment by the database's clock: machines that share a database may disagree about the time."""
    if session.get_bind().dialect.name != "postgresql":
        return now()  # SQLite runs on this machine
    moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def sqlite_file(url: str) -> Path | None:
    """The file of a URL's database, if it is one file."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


def _make_private_file(path: Path) -> None:
    """If there is no database yet, create one that other users cannot read; SQLite's other files follow it."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # connecting gives a better error for a bad path
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late to lock for writing
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # acknowledged writes survive a power cut
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
