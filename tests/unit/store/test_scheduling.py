"""Which unit is due, and in what order owners, priorities and models have their turn."""

import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from occluscope.analyses.contract import Unit as PlannedUnit
from service.store.database import Database
from service.store.jobs import submit_job
from service.store.leases import Claim, claim_unit
from service.store.scheduling import count_waiting, due_unit, longest_wait, waiting_by_priority
from service.store.states import Priority
from service.store.tables import Job, Unit
from service.store.tallies import all_tallies
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


def owners(database: Database, claims: list[Claim | None]) -> list[str]:
    with database.reading() as session:
        return [session.get_one(Job, claim.job_id).owner for claim in claims if claim]


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
    assert order == [*"abcabaaaa"]


def test_who_was_served_long_ago_goes_before_who_was_just_served(
    database: Database, submit: SubmitUnits, take: Take
) -> None:
    submit(1, owner="a")
    submit(3, owner="b")
    assert owners(database, [take(), take(), take()]) == [*"abb"]
    submit(2, owner="a")
    assert owners(database, [take(), take(), take()]) == [*"aba"]


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


def test_an_owner_without_a_row_waits_for_nobody(database: Database, submit: SubmitUnits, take: Take) -> None:
    """It cannot come about; were it to, nobody may wait for ever."""
    submit(1)
    with database.writing() as session:
        session.execute(update(Unit).values(owner="nobody"))
    assert take() is not None


def test_a_turn_is_no_ones_while_nothing_waits(database: Database, submit: SubmitUnits, take: Take) -> None:
    """Idle workers that ask move nothing, and write nothing."""
    submit(1)
    assert take()
    for _ in range(10):
        assert take() is None
    with database.reading() as session:
        assert all_tallies(session)["turns", "", ""].count == 1


class Simulation:
    """The turns as they are promised, by hand: a list of jobs for each owner and priority, and who was served when."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[Priority, str], list[str]] = {}
        self.served: dict[tuple[Priority, str], int] = {}
        self.turn = 0

    def submit(self, owner: str, priority: Priority, units: list[str]) -> None:
        self.waiting.setdefault((priority, owner), []).extend(units)

    def claim(self) -> str | None:
        queues = {queue: units for queue, units in self.waiting.items() if units}
        if not queues:
            return None
        self.turn += 1
        wanted = Priority.BATCH if self.turn % 4 == 0 else Priority.INTERACTIVE
        priority = wanted if any(queue[0] == wanted for queue in queues) else min(queue[0] for queue in queues)
        candidates = sorted((self.served.get(queue, 0), queue[1]) for queue in queues if queue[0] == priority)
        queue = (priority, candidates[0][1])
        self.served[queue] = self.turn
        return self.waiting[queue].pop(0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_turns_are_as_they_are_promised(submit: SubmitUnits, take: Take, seed: int) -> None:
    """Whatever is submitted between claims, the same unit is due as by hand."""
    chance, simulation = random.Random(seed), Simulation()  # noqa: S311
    for _ in range(60):
        if chance.random() < 0.4:
            owner, priority = chance.choice("abcd"), chance.choice(list(Priority))
            _, units = submit(chance.randint(1, 4), owner=owner, priority=priority)
            simulation.submit(owner, priority, units)
        claim = take()
        assert (claim and claim.unit_id) == simulation.claim()


def waits(claims: list[Claim | None], database: Database, owner: str) -> int:
    """After how many claims an owner's first unit is claimed."""
    return owners(database, claims).index(owner) + 1


def test_a_batch_job_is_not_held_up_by_any_number_of_interactive_ones(database: Database, take: Take) -> None:
    submit_many(database, "busy", Priority.INTERACTIVE, 1500)
    for _ in range(5):
        assert take()
    submit_many(database, "patient", Priority.BATCH, 1)
    claims = [take() for _ in range(longest_wait(Priority.BATCH, owners=1))]
    assert len(claims) == 4
    assert waits(claims, database, "patient") <= 4


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("others", [1, 4, 7])
@pytest.mark.parametrize("claimed_before", range(4))
def test_nobody_waits_longer_than_is_stated(
    database: Database, take: Take, priority: Priority, others: int, claimed_before: int
) -> None:
    """Behind owners with more than enough of both priorities, at any of the four turns."""
    for number in range(others):
        for of_others in Priority:
            submit_many(database, f"a{number}", of_others, 15)
    for _ in range(claimed_before):
        assert take()
    submit_many(database, "b", priority, 2)
    stated = longest_wait(priority, others + 1)
    assert stated == {Priority.BATCH: 4 * (others + 1), Priority.INTERACTIVE: math.ceil(4 * (others + 1) / 3)}[priority]
    claims = [take() for _ in range(2 * stated)]
    assert waits(claims[:stated], database, "b") <= stated
    assert owners(database, claims).count("b") == 2


def test_workers_at_once_take_each_unit_once_and_in_turn(database: Database, take: Take) -> None:
    submit_many(database, "a", Priority.INTERACTIVE, 20)
    submit_many(database, "b", Priority.BATCH, 20)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: take(), range(20)))
    assert len({claim.unit_id for claim in claims if claim}) == 20
    order = owners(database, claims)
    assert (order.count("a"), order.count("b")) == (15, 5)


def submit_many(database: Database, owner: str, priority: Priority, jobs: int) -> None:
    """Jobs of one unit, in one transaction."""
    with database.writing() as session:
        for _ in range(jobs):
            submit_job(
                session,
                analysis="occlusion",
                params={},
                images=[],
                units={"efficientnet_lite0": [PlannedUnit((), steps=1)]},
                request_sha256="0" * 64,
                owner=owner,
                priority=priority,
            )


def test_a_claim_waits_for_nobody_who_holds_a_job_or_its_units(
    database: Database, submit: SubmitUnits, take: Take
) -> None:
    """On PostgreSQL: all claims wait for each other, so whoever deletes a large job would hold up all workers."""
    if database.is_sqlite:
        pytest.skip("SQLite has one writer")
    begun, units = submit(3)
    assert take()
    queued, _ = submit(1)
    _, (last,) = submit(1)
    with ThreadPoolExecutor(1) as pool, database.writing() as other:
        other.execute(select(Job).where(Job.id == begun).with_for_update())
        claims = [pool.submit(take).result(timeout=20)]  # another unit of a job that ends a unit just now
        other.execute(select(Unit.id).where(Unit.job_id.in_([begun, queued])).with_for_update())
        claims.append(pool.submit(take).result(timeout=20))
        assert pool.submit(take).result(timeout=20) is None
    claims += [take() for _ in range(3)]
    assert [claim and claim.unit_id for claim in claims[:3]] == [units[1], last, units[2]]
    assert claims[3] is not None
    assert claims[4] is None
