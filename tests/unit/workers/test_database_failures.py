"""What becomes of a unit when the database fails under it: one that is away, and one that cannot give this unit's data.

The databases are real and so are their errors: a view in the place of a table refuses one row, or ends the connection.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError

from occluscope.analyses.contract import Unit as PlannedUnit
from service.queue import Queue
from service.settings import Settings
from service.store.database import Database, is_outage
from service.store.images import add_image
from service.store.jobs import submit_job
from service.store.keys import NOBODY
from service.store.tables import Artifact, Job, Unit
from tests.conftest import encode, random_picture
from workers.activity import Activity
from workers.endings import MOST_OUTAGES
from workers.execution import Executor
from workers.heartbeat import Heartbeat

NOWHERE = "redis://127.0.0.1:9/0"
COLUMNS = "sha256, size, put_at"
OVERFLOWS = "abs(-9223372036854775807 - {one})"  # in SQLite an OperationalError, raised when the row is read
REFUSES = "RAISE EXCEPTION 'too much of it' USING ERRCODE = '54000'"  # with psycopg an OperationalError too
ENDS = "IF nextval('readings') <= {times} THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF"


@pytest.fixture
def executor(database: Database) -> Executor:
    """A worker's, in this process."""
    config = Settings(broker_url=NOWHERE, broker_timeout_seconds=0.1, max_attempts=3)
    heartbeat = Heartbeat(database, config, "w", "CPU")
    return Executor(config, database, Queue(config), "w", heartbeat, Activity())


@pytest.fixture
def job_id(database: Database) -> str:
    """A job of one picture, which takes an instant."""
    image, _ = add_image(database, encode(random_picture(1)), NOBODY)
    with database.writing() as session:
        job = submit_job(
            session,
            analysis="occlusion",
            params={"window": 112, "stride": 112, "insertion_deletion": False},
            images=[image.id],
            units={"efficientnet_lite0": [PlannedUnit((image.id,), steps=4)]},
            request_sha256="0" * 64,
        )
        return job.id


@contextmanager
def pictures_given_by(database: Database, content: str, body: str = "") -> Iterator[None]:
    """A view in the place of the blobs, whose bytes an expression gives. body: of PostgreSQL's function `given`."""
    begin = ["ALTER TABLE blobs RENAME TO stored_blobs"]
    end = ["DROP VIEW blobs", "ALTER TABLE stored_blobs RENAME TO blobs"]
    if database.is_sqlite:
        begin.insert(0, "PRAGMA legacy_alter_table = ON")  # whatever refers to it still means `blobs`
        end.insert(1, "PRAGMA legacy_alter_table = ON")
    else:
        begin += ["CREATE SEQUENCE readings", f"CREATE FUNCTION given(content bytea) RETURNS bytea {plpgsql(body)}"]
        end += ["DROP FUNCTION given", "DROP SEQUENCE readings"]
    view = f"CREATE VIEW blobs AS SELECT {COLUMNS}, {content} AS content FROM stored_blobs"
    execute(database, *begin, view)
    try:
        yield
    finally:
        execute(database, *end)


def plpgsql(body: str) -> str:
    return f"LANGUAGE plpgsql VOLATILE AS $$ BEGIN {body}; RETURN content; END $$"


def execute(database: Database, *statements: str) -> None:
    with database.writing() as session:
        for statement in statements:
            session.execute(text(statement))


def unit_of(database: Database, job_id: str) -> Unit:
    with database.reading() as session:
        return session.scalars(select(Unit).where(Unit.job_id == job_id)).one()


def test_a_unit_whose_data_cannot_be_read_ends_after_its_attempts(
    database: Database, job_id: str, executor: Executor
) -> None:
    content = OVERFLOWS.format(one="size / size") if database.is_sqlite else "given(content)"
    states = []
    with pictures_given_by(database, content, REFUSES):
        for _ in range(4):
            executor.run()
            unit = unit_of(database, job_id)
            states.append((unit.state, unit.attempts))
    assert states == [("queued", 1), ("queued", 2), ("failed", 3), ("failed", 3)]
    with database.reading() as session:
        error = session.get_one(Job, job_id).error
    assert error is not None
    assert error.startswith("the database failed 3 times under it (")
    assert unit.id in error


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_database_that_goes_away_under_a_unit_uses_up_no_attempt(
    database: Database, job_id: str, executor: Executor
) -> None:
    """More often than a unit has attempts, the connection is ended while the picture is read."""
    with pictures_given_by(database, "given(content)", ENDS.format(times=5)):
        for _ in range(6):
            executor.run()
    unit = unit_of(database, job_id)
    assert (unit.state, unit.attempts, unit.fence) == ("succeeded", 1, 6)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_unit_that_brings_the_database_down_each_time_ends(
    database: Database, job_id: str, executor: Executor
) -> None:
    with pictures_given_by(database, "given(content)", ENDS.format(times=1000)):
        for _ in range(MOST_OUTAGES + 3):
            assert unit_of(database, job_id).state == "queued"
            executor.run()
    assert unit_of(database, job_id).state == "failed"


def test_results_that_the_database_refuses_end_their_unit(database: Database, job_id: str, executor: Executor) -> None:
    """Written again and again they would hold their worker for ever."""
    if database.is_sqlite:
        overflow = OVERFLOWS.format(one="length(NEW.id) / length(NEW.id)")
        begin, end = [f"CREATE TRIGGER refuse INSERT ON artifacts BEGIN SELECT {overflow}; END"], "DROP TRIGGER refuse"
    else:
        begin = [
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {REFUSES}; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON artifacts FOR EACH ROW EXECUTE FUNCTION refuse()",
        ]
        end = "DROP FUNCTION refuse CASCADE"
    execute(database, *begin)
    try:
        executor.run()
    finally:
        execute(database, end)
    with database.reading() as session:
        assert session.get_one(Job, job_id).error == "its results could not be stored"
        assert session.scalars(select(Artifact.id)).all() == []


def raised_by(database: Database, *statements: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as raised:
        execute(database, *statements)
    return raised.value


def test_a_wrong_statement_is_no_outage(database: Database) -> None:
    assert not is_outage(raised_by(database, "SELECT * FROM nothing"))
    assert not is_outage(raised_by(database, "SELECT 1 +"))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_held_or_full_sqlite_is_an_outage(database: Database) -> None:
    path = str(database.engine.url.database)
    impatient = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DBAPIError) as raised, impatient.begin() as connection:
            connection.execute(text("DELETE FROM tallies"))
        assert is_outage(raised.value)
        other.execute("ROLLBACK")
    full = ("PRAGMA max_page_count = 1", "CREATE TABLE big (content)", "INSERT INTO big VALUES (zeroblob(10000000))")
    assert is_outage(raised_by(database, *full))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_postgresql_that_does_not_answer_or_breaks_off_is_an_outage(database: Database) -> None:
    nobody = Database("postgresql+psycopg://nobody@127.0.0.1:9/nothing")
    assert is_outage(raised_by(nobody, "SELECT 1"))
    assert is_outage(raised_by(database, "SELECT pg_terminate_backend(pg_backend_pid())"))
    assert not is_outage(raised_by(database, "SET LOCAL statement_timeout = 10", "SELECT pg_sleep(10)"))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE units SET images = 'null' WHERE job_id = '{job}'",
        "UPDATE units SET payload = '{{' WHERE job_id = '{job}'",
        "UPDATE jobs SET params = '{{' WHERE id = '{job}'",
    ],
)
def test_a_unit_that_cannot_be_read_fails_and_the_next_is_done(
    database: Database, executor: Executor, job_id: str, damage: str
) -> None:
    """It is the first in the queue, where every worker would find it again and again."""
    if not database.is_sqlite and "{{" in damage:
        pytest.skip("PostgreSQL stores no JSON that is none")
    execute(database, damage.format(job=job_id))
    image, _ = add_image(database, encode(random_picture(1)), NOBODY)
    params = {"window": 112, "stride": 112, "insertion_deletion": False}
    units = {"efficientnet_lite0": [PlannedUnit((image.id,), steps=4)]}
    with database.writing() as session:
        following = submit_job(
            session, analysis="occlusion", params=params, images=[image.id], units=units, request_sha256="0" * 64
        ).id
    for _ in range(2):
        executor.run()
    with database.reading() as session:
        state, error = session.execute(select(Job.state, Job.error).where(Job.id == job_id)).one()
        assert state == "failed"
        assert error is not None
        assert "what is stored of it cannot be read" in error
        assert session.scalar(select(Job.state).where(Job.id == following)) == "succeeded"
