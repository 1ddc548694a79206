"""Counts by stage are what counting the units would give, and ending a unit costs the same in a job of any size."""

import random
from datetime import timedelta

import pytest
from sqlalchemy import Connection, event, select, update

from service.store.database import Database, clock
from service.store.ending import cancel_job
from service.store.jobs import results_of, standing_of
from service.store.leases import claim_unit, free_expired_units, give_back_unit
from service.store.scheduling import due_unit
from service.store.stages import stages_of
from service.store.tables import Job, Unit
from service.store.units import commit_unit, fail_unit, report_progress
from tests.unit.store.conftest import SubmitUnits, outcome

MODELS = ("resnet18", "resnet50", "vgg16")


def assert_counted(database: Database, job_id: str) -> None:
    """Hold every count against the units themselves."""
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        units = session.scalars(select(Unit).where(Unit.job_id == job_id).order_by(Unit.position)).all()
        stages = stages_of(session, job_id)
        assert [(stage.name, stage.model) for stage in stages] == list(
            dict.fromkeys((unit.stage, unit.model) for unit in units)
        )
        for stage in stages:
            own = [unit for unit in units if (unit.stage, unit.model) == (stage.name, stage.model)]
            still_open = [unit for unit in own if unit.state in {"queued", "running"}]
            assert (stage.units, stage.still_open) == (len(own), len(still_open))
            assert stage.failed == sum(unit.state == "failed" for unit in own)
            assert stage.steps_total == sum(unit.steps_total for unit in own)
            assert stage.steps_done == sum(unit.steps_done for unit in own if unit not in still_open)
        standing = standing_of(session, [job])[job_id]
        assert standing.progress.done == sum(unit.steps_done for unit in units)
        assert standing.progress.total == sum(unit.steps_total for unit in units)
        assert standing.models == list(MODELS)


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_right_whatever_becomes_of_the_units(database: Database, submit: SubmitUnits, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    job_id, _ = submit(5, later=True, models=MODELS)
    assert_counted(database, job_id)
    for number in range(200):
        with database.writing() as session:
            unit_id = due_unit(session)
            claim = claim_unit(session, unit_id, "w", 30) if unit_id else None
        if claim is None:
            break
        with database.writing() as session:
            report_progress(session, claim, number % 50)
        assert_counted(database, job_id)
        with database.writing() as session:
            fate = chance.random()
            if fate < 0.6:
                assert commit_unit(session, claim, outcome(number))
            elif fate < 0.75:
                assert fail_unit(session, claim, "reason")
            elif fate < 0.85:
                assert give_back_unit(session, claim)
            else:
                over = clock(session) - timedelta(seconds=1)
                session.execute(update(Unit).where(Unit.id == claim.unit_id).values(leased_until=over))
                assert free_expired_units(session, 2, 30)
        assert_counted(database, job_id)
    with database.reading() as session:
        assert session.get_one(Job, job_id).state in {"succeeded", "failed"}


def test_counts_are_right_after_a_cancel(database: Database, submit: SubmitUnits) -> None:
    job_id, unit_ids = submit(2, models=MODELS)
    for number, unit_id in enumerate(unit_ids[:3]):
        with database.writing() as session:
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
            report_progress(session, claim, 10 + number)
            if number < 2:
                commit_unit(session, claim, outcome(number))
    with database.writing() as session:
        assert cancel_job(session, job_id) == "cancelled"
    assert_counted(database, job_id)


def cost_of_ending(database: Database, submit: SubmitUnits, pictures: int) -> tuple[int, int]:
    """Statements, and units loaded, by the commit of a unit while one model of two has ended."""
    _, unit_ids = submit(pictures, models=MODELS[:2])
    for unit_id in unit_ids[:pictures]:
        with database.writing() as session:
            claim = claim_unit(session, unit_id, "w", 30)
            assert claim is not None
            commit_unit(session, claim, outcome())
    with database.writing() as session:
        claim = claim_unit(session, unit_ids[pictures], "w", 30)
        assert claim is not None
    statements: list[str] = []
    loaded: list[Unit] = []

    def note_statement(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    def note_unit(unit: Unit, _context: object) -> None:
        loaded.append(unit)

    event.listen(database.engine, "before_cursor_execute", note_statement)
    event.listen(Unit, "load", note_unit)
    try:
        with database.writing() as session:
            assert commit_unit(session, claim, outcome())
    finally:
        event.remove(database.engine, "before_cursor_execute", note_statement)
        event.remove(Unit, "load", note_unit)
    return len(statements), len(loaded)


def test_ending_a_unit_looks_at_no_other_however_many_there_are(database: Database, submit: SubmitUnits) -> None:
    small, big = cost_of_ending(database, submit, 2), cost_of_ending(database, submit, 40)
    assert small == big
    assert big[1] == 0


def test_a_stage_that_cannot_be_planned_ends_the_job_with_the_reason(database: Database, submit: SubmitUnits) -> None:
    job_id, (unit_id,) = submit(later=True, models=["a model whose card is gone"])
    with database.writing() as session:
        claim = claim_unit(session, unit_id, "w", 30)
        assert claim is not None
        assert commit_unit(session, claim, outcome())
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert job.state == "failed"
        assert "1 of 2 units failed" in (job.error or "")
        assert "its units could not be planned" in (job.error or "")
        assert [stage.still_open for stage in stages_of(session, job_id)] == [0, 0]
        assert due_unit(session) is None
        _, artifacts = results_of(session, job_id)
        assert artifacts
