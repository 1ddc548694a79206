import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from service.store.database import Database
from service.store.migrate import migrate
from service.store.tables import Owner, Worker
from service.store.workers import Pulse, forget_silent_workers, forget_worker, live_workers, note_worker


def test_sqlite_writes_ahead_and_keeps_foreign_keys(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new folder' / 'store.db'}")
    with database.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) == 30_000


def test_errors_that_are_logged_say_nothing_of_what_was_written(database: Database) -> None:
    """Webhooks' secrets and users' parameters stand in no log."""
    with pytest.raises(DBAPIError, match="hidden") as raised, database.writing() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "whsec_abc"})
    assert "whsec_abc" not in str(raised.value)


def test_a_reader_is_not_held_up_by_a_writer(database: Database) -> None:
    with database.writing() as writer:
        note_worker(writer, Pulse("w", "CPU"))
        writer.flush()
        with database.reading() as reader:
            assert reader.scalars(select(Worker.id)).all() == []


def test_all_that_a_reader_reads_is_of_one_moment(database: Database) -> None:
    ada = select(Owner.name).where(Owner.name == "ada")
    with database.reading() as session:
        assert session.scalar(ada) is None
        with database.writing() as other:
            other.add(Owner(name="ada"))
        assert session.scalar(ada) is None
    with database.reading() as session:
        assert session.scalar(ada) == "ada"


@pytest.mark.slow
def test_writers_in_several_processes_wait_for_each_other(tmp_path: Path) -> None:
    """Each reads and then writes in one transaction: without the early lock SQLite would refuse some."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    database = Database(url)
    migrate(database)
    with database.writing() as session:
        session.execute(text("CREATE TABLE counter (n INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    count = f"""
from sqlalchemy import text
from service.store.database import Database
database = Database({url!r})
for _ in range(100):
    with database.writing() as session:
        n = session.scalar(text("SELECT n FROM counter"))
        session.execute(text("UPDATE counter SET n = :n"), {{"n": n + 1}})
"""
    processes = [subprocess.Popen([sys.executable, "-c", count]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    with database.reading() as session:
        assert session.scalar(text("SELECT n FROM counter")) == 400


def test_an_error_rolls_back(database: Database) -> None:
    with pytest.raises(RuntimeError), database.writing() as session:
        note_worker(session, Pulse("w", "CPU"))
        session.flush()
        raise RuntimeError
    with database.reading() as session:
        assert len(live_workers(session, 1000)) == 0


def test_workers_are_live_while_they_are_heard_of(database: Database) -> None:
    for _ in range(2):
        with database.writing() as session:
            note_worker(session, Pulse("a", "CPU"))
            note_worker(session, Pulse("b", "CPU"))
    with database.reading() as session:
        assert len(live_workers(session, within_seconds=60)) == 2
        assert len(live_workers(session, within_seconds=0)) == 0
    with database.writing() as session:
        forget_worker(session, "a")
    with database.writing() as session:
        forget_silent_workers(session, within_seconds=60)
    with database.reading() as session:
        assert len(live_workers(session, 60)) == 1
    with database.writing() as session:
        forget_silent_workers(session, within_seconds=0)
    with database.reading() as session:
        assert len(live_workers(session, 60)) == 0


def test_a_new_database_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask; and one that is there already stays as its operator made it."""
    path = tmp_path / "folder" / "new.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    database.close()
    path.chmod(0o640)
    Database(f"sqlite:///{path}").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
