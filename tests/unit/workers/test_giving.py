"""Results that an analysis gives as they come."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from occluscope import analyses
from occluscope.analyses.contract import Outcome, Sink
from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.errors import UnitAbortedError
from occluscope.pictures.preparation import Frame
from occluscope.results import GridGeometry, Heatmap, Metric, NamedResult, Variant
from occluscope.windows import WindowGrid
from service.queue import Queue
from service.settings import Settings
from service.store.database import Database
from service.store.images import add_image
from service.store.jobs import results_of, submit_job
from service.store.keys import NOBODY
from service.store.tables import Artifact, Job, Unit
from service.store.units import stored_result
from tests.conftest import encode, random_picture
from workers.activity import Activity
from workers.execution import Executor
from workers.giving import MOST_HELD_BYTES
from workers.heartbeat import Heartbeat

SIDE = 512  # of a map: one mebibyte
COUNT = 11
Give = Callable[[Sink], Outcome]


def a_map(number: int) -> NamedResult:
    geometry = GridGeometry(WindowGrid.over((SIDE, SIDE), (1, 1), (1, 1)), (SIDE, SIDE), Frame(0, 0, SIDE, SIDE))
    values = np.full((SIDE, SIDE), number, dtype=np.float32)
    return NamedResult("map", Heatmap(values, geometry, "level", "a map"), None, Variant.of(number=str(number)))


@pytest.fixture
def executor(database: Database) -> Executor:
    config = Settings(broker_url="redis://127.0.0.1:9/0", broker_timeout_seconds=0.1)
    return Executor(config, database, Queue(config), "w", Heartbeat(database, config, "w", "CPU"), Activity())


@pytest.fixture
def job_id(database: Database) -> str:
    image, _ = add_image(database, encode(random_picture(1)), NOBODY)
    with database.writing() as session:
        return submit_job(
            session,
            analysis="occlusion",
            params={"window": 112, "stride": 112},
            images=[image.id],
            units={"efficientnet_lite0": [PlannedUnit((image.id,), steps=4)]},
            request_sha256="0" * 64,
        ).id


@pytest.fixture
def run(database: Database, executor: Executor, job_id: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Give], Job]:
    """Run the job's unit by this compute; gives the job as it then is."""

    def run(give: Give) -> Job:
        monkeypatch.setattr(analyses, "compute", lambda _name: lambda *arguments: give(arguments[-1]))
        executor.run()
        with database.reading() as session:
            return session.get_one(Job, job_id)

    return run


def stored(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(Artifact)) or 0


def test_results_are_stored_as_they_come_and_never_much_is_held(
    database: Database, run: Callable[[Give], Job], job_id: str
) -> None:
    made: list[int] = []

    def maps() -> Iterator[NamedResult]:
        for number in range(COUNT - 1):
            assert (number - stored(database)) * SIDE**2 * 4 <= MOST_HELD_BYTES
            made.append(number)
            yield a_map(number)

    def compute(report: Sink) -> Outcome:
        report.give(maps(), [Metric("first", 1.0)])
        report.give(metrics=[Metric("second", 2.0)])
        return Outcome([a_map(COUNT - 1)], [Metric("third", 3.0)])

    job = run(compute)
    assert (job.state, job.error, len(made)) == ("succeeded", None, COUNT - 1)
    assert job.stored_bytes > COUNT * SIDE**2 * 4
    with database.reading() as session:
        metrics, artifacts = results_of(session, job_id)
        assert [one.name for one in metrics] == ["first", "second", "third"]
        assert [one.position for one in artifacts] == list(range(COUNT))
        for number, artifact in enumerate(artifacts):
            result = stored_result(artifact)
            assert isinstance(result, Heatmap)
            assert (result.values == number).all()


@pytest.mark.parametrize("distance", [1, COUNT])
def test_a_result_that_is_given_twice_fails_its_unit_with_its_name(
    database: Database, run: Callable[[Give], Job], distance: int
) -> None:
    """Whether the first of the two is still held or stored long since."""

    def compute(report: Sink) -> Outcome:
        report.give(a_map(number) for number in range(COUNT))
        report.give([a_map(COUNT - distance)])
        return Outcome([], [])

    job = run(compute)
    assert job.state == "failed"
    times = "2 times" if distance == 1 else "before"
    assert job.error == f"result 'map' ({COUNT - distance}) was given {times}; right is once"
    assert stored(database) == 0


def test_a_unit_that_raises_leaves_nothing_that_it_gave(database: Database, run: Callable[[Give], Job]) -> None:
    def compute(report: Sink) -> Outcome:
        report.give(a_map(number) for number in range(COUNT))
        assert stored(database) > 0
        raise ZeroDivisionError

    assert run(compute).state == "failed"
    assert stored(database) == 0


def test_who_gives_after_its_claim_is_gone_is_stopped(
    database: Database, run: Callable[[Give], Job], job_id: str
) -> None:
    """Another worker has claimed its unit."""
    stopped: list[int] = []

    def compute(report: Sink) -> Outcome:
        report.give(a_map(number) for number in range(COUNT))
        with database.writing() as session:
            unit = session.scalars(select(Unit).where(Unit.job_id == job_id)).one()
            unit.fence += 1
        try:
            report.give(a_map(number) for number in range(COUNT, 2 * COUNT))
        except UnitAbortedError:
            stopped.append(1)
            raise
        return Outcome([], [])

    assert run(compute).state == "running"
    assert stopped == [1]
    assert stored(database) < COUNT


def test_a_database_that_is_away_for_a_while_loses_and_doubles_nothing(
    database: Database, run: Callable[[Give], Job], job_id: str
) -> None:
    refused: list[str] = []

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO artifacts") and len(refused) < 2:
            refused.append(statement)
            raise OperationalError(statement, {}, OSError("connection reset"), connection_invalidated=True)

    def compute(report: Sink) -> Outcome:
        report.give(a_map(number) for number in range(COUNT))
        return Outcome([], [])

    event.listen(database.engine, "before_cursor_execute", refuse)
    job = run(compute)
    event.remove(database.engine, "before_cursor_execute", refuse)
    assert (job.state, len(refused)) == ("succeeded", 2)
    with database.reading() as session:
        assert [str(one.variant) for one in results_of(session, job_id)[1]] == [str(n) for n in range(COUNT)]


class _OwnError(Exception):
    """As an analysis may raise in place of what it caught."""


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("how", ["give", "report"])
def test_a_unit_that_catches_that_it_is_wanted_no_more_waits_again_and_whole(
    database: Database, executor: Executor, run: Callable[[Give], Job], how: str, raises: bool
) -> None:
    """Its worker was asked to stop: what the unit lacks must not be missing from a success, nor fail its job."""

    def compute(report: Sink) -> Outcome:
        for number in range(COUNT):
            if number == COUNT - 3:
                executor.stopping.set()
            try:
                if how == "give":
                    report.give([a_map(number)])
                else:
                    report(number)
            except Exception as error:
                if raises:
                    raise _OwnError from error
        return Outcome([], [])

    assert run(compute).state == "running"
    with database.reading() as session:
        unit = session.scalars(select(Unit)).one()
        assert (unit.state, unit.attempts, unit.error) == ("queued", 0, None)
    assert stored(database) == 0

    executor.stopping.clear()

    def again(report: Sink) -> Outcome:
        report.give(a_map(number) for number in range(COUNT))
        return Outcome([], [])

    assert run(again).state == "succeeded"
    assert stored(database) == COUNT


def test_a_worker_deletes_in_portions_what_an_earlier_claim_gave_and_then_begins(
    database: Database, executor: Executor, run: Callable[[Give], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.given._PORTION_ROWS", 1)
    transactions: list[int] = []

    def stopped(report: Sink) -> Outcome:
        report.give(a_map(number) for number in range(COUNT))
        executor.stopping.set()
        report(1)
        return Outcome([], [])

    def again(report: Sink) -> Outcome:
        assert stored(database) == 0
        report.give(a_map(number) for number in range(COUNT))
        return Outcome([], [])

    def count(_session: Session, _flush_context: Any = None) -> None:
        transactions.append(1)

    assert run(stopped).state == "running"
    left = stored(database)
    assert left > 1, "a portion is deleted when the unit is given back, no more"
    executor.stopping.clear()
    event.listen(Session, "after_commit", count)
    assert run(again).state == "succeeded"
    event.remove(Session, "after_commit", count)
    assert len(transactions) > left
    assert stored(database) == COUNT


@pytest.mark.parametrize("number", [0, COUNT - 1])
def test_a_unit_that_catches_that_a_result_is_refused_fails_with_the_reason(
    database: Database, run: Callable[[Give], Job], number: int
) -> None:
    no_result: Any = "a text"

    def compute(report: Sink) -> Outcome:
        for place in range(COUNT):
            named = a_map(place)
            with suppress(Exception):
                report.give([replace(named, result=no_result) if place == number else named])
        return Outcome([], [])

    job = run(compute)
    assert (job.state, stored(database)) == ("failed", 0)
    assert f"result 'map' ({number}) is a str; right is one of" in str(job.error)


def test_a_unit_may_catch_what_its_own_results_raise(database: Database, run: Callable[[Give], Job]) -> None:
    def maps() -> Iterator[NamedResult]:
        yield a_map(1)
        raise ZeroDivisionError

    def compute(report: Sink) -> Outcome:
        with suppress(ZeroDivisionError):
            report.give(maps())
        return Outcome([], [])

    assert run(compute).state == "succeeded"
    assert stored(database) == 1
