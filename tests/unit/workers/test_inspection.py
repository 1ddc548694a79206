"""Models that a worker inspects: their cards, or why there is none."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from occluscope.models import card
from occluscope.models.card import Description
from service.queue import Queue
from service.settings import Settings
from service.store.database import Database, clock
from service.store.ending import cancel_job
from service.store.inspections import card_of, queue_inspection
from service.store.jobs import find_job, list_jobs
from service.store.leases import claim_unit, free_expired_units
from service.store.scheduling import due_unit
from service.store.tables import Job, Model, Unit
from service.upkeep.retention import delete_what_is_over
from workers.activity import Activity
from workers.execution import Executor
from workers.heartbeat import Heartbeat

SHIPPED = card("efficientnet_lite0")


def described(**changed: str) -> Description:
    known = SHIPPED.model_dump(exclude={"layers"})
    return Description(**{**known, "name": "flowers", **changed})


def queued(database: Database, description: Description) -> str:
    with database.writing() as session:
        return queue_inspection(session, "ada", description).id


def model(database: Database, model_id: str) -> Model:
    with database.reading() as session:
        return session.get_one(Model, model_id)


@pytest.fixture
def executor(database: Database) -> Executor:
    config = Settings(broker_url="redis://127.0.0.1:9/0", broker_timeout_seconds=0.1)
    return Executor(config, database, Queue(config), "w", Heartbeat(database, config, "w", "CPU"), Activity())


def test_a_model_that_runs_has_the_card_that_it_would_be_shipped_with(database: Database, executor: Executor) -> None:
    model_id = queued(database, described())
    assert card_of(model(database, model_id)) is None
    executor.run()
    found = model(database, model_id)
    assert (found.owner, found.name, found.error) == ("ada", "flowers", None)
    assert card_of(found) == SHIPPED.model_copy(update={"name": "flowers"})
    with database.reading() as session:
        assert found.job_id is not None
        job = session.get_one(Job, found.job_id)
        assert (job.state, job.error) == ("succeeded", None)
        assert due_unit(session) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"architecture": "efficientnet_lite9"}, "model 'flowers' cannot be inspected: "),
        ({"source": "elsewhere"}, "model 'flowers' cannot be inspected: KeyError: 'elsewhere'"),
    ],
)
def test_a_model_that_cannot_be_loaded_has_the_reason(
    database: Database, executor: Executor, changed: dict[str, str], reason: str
) -> None:
    model_id = queued(database, described(**changed))
    executor.run()
    found = model(database, model_id)
    assert card_of(found) is None
    assert (found.error or "").startswith(reason)


def test_a_model_whose_workers_die_every_time_has_that_for_a_reason(database: Database) -> None:
    model_id = queued(database, described())
    for _ in range(2):
        with database.writing() as session:
            due = due_unit(session)
            assert due is not None
            assert claim_unit(session, due, "w", 30)
        with database.writing() as session:
            session.execute(update(Unit).values(leased_until=clock(session) - timedelta(seconds=1)))
            free_expired_units(session, 2, 30)
    assert model(database, model_id).error == "its worker died or fell silent 2 times while it ran"


def test_an_inspection_that_is_cancelled_says_so(database: Database) -> None:
    model_id = queued(database, described())
    job_id = model(database, model_id).job_id
    assert job_id is not None
    with database.writing() as session:
        assert cancel_job(session, job_id) == "cancelled"
    assert model(database, model_id).error == "its inspection was cancelled"


def test_an_inspection_is_none_of_its_owners_jobs_and_a_card_outlives_it(
    database: Database, executor: Executor
) -> None:
    model_id = queued(database, described())
    job_id = model(database, model_id).job_id
    assert job_id is not None
    with database.reading() as session:
        assert list_jobs(session, owner="ada").jobs == []
        assert find_job(session, job_id, "ada") is None
    executor.run()
    with database.writing() as session:
        session.execute(update(Job).values(finished_at=clock(session) - timedelta(days=30)))
    assert delete_what_is_over(database, Settings(keep_days=7)) == 1
    found = model(database, model_id)
    assert found.job_id is None
    assert card_of(found) == SHIPPED.model_copy(update={"name": "flowers"})
