"""Leases under many workers, reconcilers and users at once, and under clocks that jump."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from service.store.database import Database, clock
from service.store.ending import cancel_job
from service.store.jobs import delete_job
from service.store.leases import Freed, claim_unit, free_expired_units, give_back_unit
from service.store.scheduling import due_unit
from service.store.tables import Artifact, Job, Unit
from service.store.tallies import all_tallies
from service.store.units import commit_unit, report_progress
from tests.unit.store.conftest import SubmitUnits, outcome

LEASE_SECONDS = 30.0


def shift_leases(database: Database, seconds: float) -> None:
    """Have every lease end so many seconds from now."""
    with database.writing() as session:
        moment = clock(session) + timedelta(seconds=seconds)
        session.execute(update(Unit).where(Unit.state == "running").values(leased_until=moment))


def free(database: Database) -> list[Freed]:
    with database.writing() as session:
        return free_expired_units(session, 3, LEASE_SECONDS)


def test_two_reconcilers_at_once_free_each_unit_once(database: Database, submit: SubmitUnits) -> None:
    jobs = [submit(2) for _ in range(10)]
    for _, units in jobs:
        for unit_id in units:
            with database.writing() as session:
                assert claim_unit(session, unit_id, "w", LEASE_SECONDS)
    shift_leases(database, -1)
    with ThreadPoolExecutor(4) as pool:
        freed = [unit.unit_id for units in pool.map(lambda _: free(database), range(8)) for unit in units]
    assert sorted(freed) == sorted(unit_id for _, units in jobs for unit_id in units)
    with database.reading() as session:
        assert all_tallies(session)["recoveries", "", ""].count == 20


def test_a_lease_written_by_a_clock_that_was_set_back_ends_within_two_leases(
    database: Database, submit: SubmitUnits
) -> None:
    _, (unit_id,) = submit()
    with database.writing() as session:
        assert claim_unit(session, unit_id, "w", LEASE_SECONDS)
    shift_leases(database, 3600)
    assert free(database) == []
    with database.reading() as session:
        until = session.get_one(Unit, unit_id).leased_until
        assert until is not None
        assert abs((until - clock(session)).total_seconds() - LEASE_SECONDS) < 5


def test_workers_reconcilers_and_users_at_once_never_wait_for_each_other(
    database: Database, submit: SubmitUnits
) -> None:
    """No deadlock, nothing doubled, and every job that nobody deleted can still end. The seed only orders the calls."""
    jobs = [submit(3)[0] for _ in range(12)]
    moves = random.Random(7)  # noqa: S311

    def work(number: int) -> None:
        with database.writing() as session:
            unit_id = due_unit(session)
            claim = claim_unit(session, unit_id, f"w{number}", LEASE_SECONDS) if unit_id else None
        if claim is None:
            return
        with database.writing() as session:
            report_progress(session, claim, 5, outcome(number).results)
        with database.writing() as session:
            (give_back_unit if number % 5 == 0 else lambda s, c: commit_unit(s, c, outcome(number)))(session, claim)

    def meddle(number: int) -> None:
        job_id = jobs[number % len(jobs)]
        if number % 3 == 0:
            with database.writing() as session:
                session.execute(
                    update(Unit)
                    .where(
                        Unit.state == "running",
                        Unit.id == select(Unit.id).where(Unit.state == "running").limit(1).scalar_subquery(),
                    )
                    .values(leased_until=clock(session) - timedelta(seconds=1))
                )
            free(database)
        elif number % 3 == 1 and number < 12:
            with database.writing() as session:
                cancel_job(session, job_id)
        elif number < 12:
            with database.writing() as session:
                delete_job(session, job_id)

    calls = [(work, number) for number in range(60)] + [(meddle, number) for number in range(30)]
    moves.shuffle(calls)
    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(call, number) for call, number in calls]:
            done.result(60)
    for number in range(60, 200):
        work(number)
    with database.reading() as session:
        assert set(session.scalars(select(Job.state))) <= {"succeeded", "failed", "cancelled"}
        per_unit = select(func.count()).select_from(Artifact).group_by(Artifact.unit_id)
        assert set(session.scalars(per_unit)) == {2}


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_failed_by_its_last_attempt_ends_its_job(database: Database, submit: SubmitUnits, attempts: int) -> None:
    job_id, (unit_id,) = submit()
    for _ in range(attempts):
        with database.writing() as session:
            assert claim_unit(session, unit_id, "w", LEASE_SECONDS)
        shift_leases(database, -1)
        with database.writing() as session:
            free_expired_units(session, attempts, LEASE_SECONDS)
    with database.reading() as session:
        assert session.get_one(Job, job_id).state == "failed"
