"""A unit ends whatever its analysis gives or raises, and a worker's heart goes on whatever fails beside it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import OperationalError

from occluscope import analyses
from occluscope.analyses.contract import Outcome
from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.errors import OccluscopeError
from occluscope.models import card
from occluscope.models.catalogue import SOURCES
from occluscope.results import Column, Heatmap, Metric, NamedResult, Table
from service.queue import Queue
from service.settings import Settings
from service.store.database import Database
from service.store.images import add_image
from service.store.jobs import submit_job
from service.store.keys import NOBODY
from service.store.leases import claim_unit, free_expired_units
from service.store.tables import Artifact, Job, Unit, Worker
from tests.conftest import encode, random_picture
from tests.parts import wait_until
from tests.unit.models.test_catalogue import OneOwners
from tests.unit.store.conftest import given
from workers import memory
from workers.activity import Activity
from workers.execution import Executor
from workers.heartbeat import Heartbeat

NOWHERE = "redis://127.0.0.1:9/0"
Compute = Callable[..., Outcome]


@pytest.fixture
def config() -> Settings:
    return Settings(broker_url=NOWHERE, broker_timeout_seconds=0.1, heartbeat_seconds=0.05, progress_seconds=0.001)


@pytest.fixture
def executor(database: Database, config: Settings) -> Executor:
    """A worker's, in this process."""
    return Executor(config, database, Queue(config), "w", Heartbeat(database, config, "w", "CPU"), Activity())


@pytest.fixture
def job_id(database: Database) -> str:
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


@pytest.fixture
def run(database: Database, executor: Executor, job_id: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Unit]:
    """Run the job's unit by this compute; gives it as it then is."""

    def run(compute: Compute) -> Unit:
        monkeypatch.setattr(analyses, "compute", lambda _name: compute)
        executor.run()
        return unit_of(database, job_id)

    return run


def unit_of(database: Database, job_id: str) -> Unit:
    with database.reading() as session:
        return session.scalars(select(Unit).where(Unit.job_id == job_id)).one()


def with_a_numpy_set(*_: Any) -> Outcome:
    rows: Any = ((np.int64(3), {1, 2}),)
    return Outcome([NamedResult("rows", Table((Column("n", "integer"), Column("of", "text")), rows, "numbers"))], [])


def test_a_result_that_cannot_be_packed_fails_its_unit_at_once_with_the_reason(
    database: Database, job_id: str, run: Callable[..., Unit]
) -> None:
    unit = run(with_a_numpy_set)
    assert (unit.state, unit.attempts) == ("failed", 1)
    assert unit.error is not None
    assert unit.error.startswith("result 'rows' cannot be stored: rows.0.1 is a set ({1, 2}); right are text, numbers,")
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.error) == ("failed", unit.error)


def test_a_preview_that_cannot_be_packed_fails_its_unit_at_once_with_the_reason(run: Callable[..., Unit]) -> None:
    def compute(*arguments: Any) -> Outcome:
        report = arguments[-1]
        while True:
            report(1, lambda: with_a_numpy_set().results)

    unit = run(compute)
    assert (unit.state, unit.attempts) == ("failed", 1)
    assert "rows.0.1 is a set" in (unit.error or "")


def test_numbers_of_numpy_are_stored(database: Database, job_id: str, run: Callable[..., Unit]) -> None:
    def compute(*_: Any) -> Outcome:
        rows: Any = ((np.int64(3), np.float32(0.5)),)
        table = Table((Column("n", "integer"), Column("share", "number")), rows, "numbers")
        return Outcome([NamedResult("rows", table)], [Metric("mean", np.float32(0.25))])  # type: ignore[arg-type]

    assert run(compute).state == "succeeded"
    with database.reading() as session:
        (meta,) = session.scalars(select(Artifact.meta).where(Artifact.job_id == job_id))
    assert meta["rows"] == [[3, 0.5]]


def test_results_are_packed_once_and_not_in_the_databases_turn(
    database: Database, run: Callable[..., Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the transaction must be tried again, and with nobody held up meanwhile."""
    times: list[bool] = []
    packing = Heatmap.pack

    def pack(result: Heatmap) -> Any:
        with database.writing() as session:  # waits for ever if the turn is taken
            times.append(session.is_active)
        return packing(result)

    monkeypatch.setattr(Heatmap, "pack", pack)
    refused: list[str] = []

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO artifacts") and len(refused) < 2:
            refused.append(statement)
            raise OperationalError(statement, {}, OSError("connection reset"), connection_invalidated=True)

    event.listen(database.engine, "before_cursor_execute", refuse)
    unit = run(lambda *_: given(7))
    event.remove(database.engine, "before_cursor_execute", refuse)
    assert (unit.state, len(refused), len(times)) == ("succeeded", 2, 1)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RecursionError(), OSError(5)])
def test_whatever_an_analysis_raises_its_unit_fails_with_a_reason(
    error: BaseException, run: Callable[..., Unit]
) -> None:
    def compute(*_: Any) -> Outcome:
        raise error

    unit = run(compute)
    assert (unit.state, unit.attempts) == ("failed", 1)
    assert unit.error == f"internal error ({type(error).__name__}); the worker's log has unit {unit.id}"


def test_a_reason_that_a_database_would_refuse_is_written_all_the_same(run: Callable[..., Unit]) -> None:
    def compute(*_: Any) -> Outcome:
        raise OccluscopeError("layer\0 \ud800" + "x" * 100_000)

    unit = run(compute)
    assert unit.state == "failed"
    assert (unit.error or "").startswith("layer\N{REPLACEMENT CHARACTER} ?xxx")
    assert len(unit.error or "") == 2000


def test_a_unit_whose_end_cannot_be_written_is_free_at_once(
    database: Database, job_id: str, run: Callable[..., Unit]
) -> None:
    """Neither its results nor its failure: something breaks in writing that is no error of the database's."""

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE units") and "finished_at=" in statement:
            raise ZeroDivisionError(statement)

    event.listen(database.engine, "before_cursor_execute", refuse)
    unit = run(lambda *_: given(7))
    event.remove(database.engine, "before_cursor_execute", refuse)
    assert unit.state == "running"
    with database.writing() as session:
        (freed,) = free_expired_units(session, max_attempts=1, lease_seconds=30)
    assert (freed.unit_id, freed.failed) == (unit.id, True)
    with database.reading() as session:
        assert session.get_one(Job, job_id).state == "failed"


def test_a_claim_that_breaks_leaves_the_unit_queued(database: Database, executor: Executor, job_id: str) -> None:
    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE units"):
            raise ZeroDivisionError(statement)

    event.listen(database.engine, "before_cursor_execute", refuse)
    executor.run()
    event.remove(database.engine, "before_cursor_execute", refuse)
    assert unit_of(database, job_id).state == "queued"


def test_a_heart_beats_on_where_memory_cannot_be_read(
    database: Database, config: Settings, job_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_STATM", tmp_path / "gone")
    heart = Heartbeat(database, config, "w", "CPU")
    with database.writing() as session:
        claim = claim_unit(session, unit_of(database, job_id).id, "w", config.lease_seconds)
    assert claim is not None
    with heart.holding(claim) as lost:
        before = unit_of(database, job_id).leased_until
        heart.start()
        wait_until(lambda: unit_of(database, job_id).leased_until != before)
        assert not lost.is_set()
    with database.reading() as session:
        assert session.get_one(Worker, "w").memory_bytes == 0
    heart.stop()


def test_a_heart_beats_on_after_an_error_that_is_none_of_the_databases(database: Database, config: Settings) -> None:
    broken = threading.Event()

    def refuse(*_: Any) -> None:
        if not broken.is_set():
            broken.set()
            raise OSError("no file descriptor is left")

    event.listen(database.engine, "before_cursor_execute", refuse)
    heart = Heartbeat(database, config, "w", "CPU")
    heart.start()
    assert broken.is_set()

    def is_there() -> bool:
        with database.reading() as session:
            return session.get(Worker, "w") is not None

    wait_until(is_there)
    heart.stop()
    event.remove(database.engine, "before_cursor_execute", refuse)


def test_a_broker_that_answers_with_errors_ends_no_announcement_in_an_exception(
    database: Database, run: Callable[..., Unit]
) -> None:
    """Nobody listens at the broker's address; the unit has ended all the same."""
    assert run(lambda *_: given(7)).state == "succeeded"
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM artifacts")) == 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("owner", "state"), [("ada", "succeeded"), ("ben", "failed")])
def test_a_unit_runs_the_model_that_its_owner_has(
    database: Database, executor: Executor, monkeypatch: pytest.MonkeyPatch, owner: str, state: str
) -> None:
    monkeypatch.setattr(
        "occluscope.models.catalogue.SOURCES",
        {**SOURCES, "own": OneOwners("ada", card("efficientnet_lite0").model_copy(update={"name": "flowers"}))},
    )
    image, _ = add_image(database, encode(random_picture(1)), owner)
    params = {"window": 112, "stride": 112, "insertion_deletion": False}
    units = {"flowers": [PlannedUnit((image.id,), steps=4)]}
    with database.writing() as session:
        job_id = submit_job(
            session,
            analysis="occlusion",
            params=params,
            images=[image.id],
            units=units,
            request_sha256="0" * 64,
            owner=owner,
        ).id
    executor.run()
    assert unit_of(database, job_id).state == state


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("bound", "ends"), [(1, 1), (2**40, 0)])
def test_a_worker_over_its_bound_of_memory_ends_after_its_unit_and_loses_none(
    database: Database, job_id: str, monkeypatch: pytest.MonkeyPatch, bound: int, ends: int
) -> None:
    config = Settings(broker_url=NOWHERE, broker_timeout_seconds=0.1, worker_memory_bytes=bound)
    asked: list[str] = []
    heart = Heartbeat(database, config, "w", "CPU")

    def end() -> None:
        asked.append(unit_of(database, job_id).state)

    monkeypatch.setattr(analyses, "compute", lambda _name: lambda *_: given(7))
    Executor(config, database, Queue(config), "w", heart, Activity(), end=end).run()
    assert asked == ["succeeded"] * ends
    assert unit_of(database, job_id).state == "succeeded"
