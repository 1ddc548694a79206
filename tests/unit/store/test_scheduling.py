"""Which unit is due, and in what order owners, priorities and models have their turn."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from service.store.database import Database
from service.store.leases import Claim, claim_unit
from service.store.scheduling import count_waiting, due_unit, waiting_by_priority
from service.store.states import Priority
from service.store.tables import Job, Unit
from tests.unit.store.conftest import SubmitUnits

Take = Callable[..., Claim | None]


@pytest.fixture
def take(database: Database) -> Take:
    """Do as a worker does on a message."""

    def take_due(*loaded: str) -> Claim | None:
        with database.writing() as session:
            unit_id = due_unit(session, loaded)
            return claim_unit(session, unit_id, "w", 30) if unit_id else None

    return take_due


def owners(database: Database, claims: list[Claim | None]) -> str:
    with database.reading() as session:
        return "".join(session.get_one(Job, claim.job_id).owner for claim in claims if claim)


def test_units_are_due_oldest_job_first_in_the_plans_order(submit: SubmitUnits, take: Take) -> None:
    (_, first), (_, second) = submit(3), submit(2)
    claims = [take() for _ in range(6)]
    assert [claim and claim.unit_id for claim in claims] == [*first, *second, None]


def test_what_somebody_waits_for_goes_before_a_big_job(submit: SubmitUnits, take: Take) -> None:
    submit(5)
    assert take()
    urgent, _ = submit(2, priority=Priority.INTERACTIVE)
    claims = [take() for _ in range(3)]
    assert [claim is not None and claim.job_id == urgent for claim in claims] == [True, True, False]


def test_owners_take_turns_however_much_each_has_asked_for(database: Database, submit: SubmitUnits, take: Take) -> None:
    submit(6, owner="a")
    submit(2, owner="b")
    submit(1, owner="c")
    order = owners(database, [take() for _ in range(9)])
    assert order == "abcab" + "aaaa"


def test_who_was_served_long_ago_goes_before_who_was_just_served(
    database: Database, submit: SubmitUnits, take: Take
) -> None:
    submit(1, owner="a")
    submit(3, owner="b")
    assert owners(database, [take(), take(), take()]) == "abb"
    submit(2, owner="a")
    assert owners(database, [take(), take(), take()]) == "aba"


def test_a_worker_takes_the_model_it_has_loaded_of_the_jobs_it_may_choose_from(submit: SubmitUnits, take: Take) -> None:
    """Within one job only: a later job's unit would make the earlier job wait."""
    submit(2, models=("resnet18", "resnet50"))
    submit(1, models=("vgg16",))
    claims = [take("resnet50", "vgg16") for _ in range(5)]
    assert [claim and claim.model for claim in claims] == ["resnet50", "resnet50", "resnet18", "resnet18", "vgg16"]


def test_a_unit_freed_or_given_back_keeps_its_place(database: Database, submit: SubmitUnits, take: Take) -> None:
    (_, first), _ = submit(1), submit(1)
    claim = take()
    with database.writing() as session:
        unit = session.get_one(Unit, first[0])
        unit.state = "queued"
    again = take()
    assert claim is not None
    assert again is not None
    assert again.unit_id == claim.unit_id


def test_depth_and_age_of_the_queue(database: Database, submit: SubmitUnits, take: Take) -> None:
    submit(3)
    submit(1, priority=Priority.INTERACTIVE)
    take()
    with database.reading() as session:
        waiting = waiting_by_priority(session)
        assert {priority: queue.units for priority, queue in waiting.items()} == {
            Priority.INTERACTIVE: 0,
            Priority.BATCH: 3,
        }
        assert 0 <= waiting[Priority.BATCH].oldest_seconds < 60
        assert count_waiting(session, 100) == 3
        assert count_waiting(session, 2) == 2


def test_an_owner_without_a_row_does_not_hold_up_a_worker(database: Database, submit: SubmitUnits, take: Take) -> None:
    """It cannot come about; were it to, nobody may wait for ever."""
    submit(1)
    with database.writing() as session:
        session.execute(update(Unit).values(owner="nobody"))
    assert take() is None
    with database.reading() as session:
        assert session.scalar(select(Unit.state)) == "queued"
