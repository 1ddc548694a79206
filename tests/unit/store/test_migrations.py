from alembic import command
from sqlalchemy import inspect, select, text

from service.store.database import Database
from service.store.images import find_image
from service.store.jobs import find_by_idempotency_key, images_of, models_of, results_of
from service.store.keys import NOBODY
from service.store.leases import claim_unit
from service.store.migrate import alembic_config, migrate
from service.store.tables import Base, Unit
from service.store.units import commit_unit
from tests.unit.store.conftest import SubmitUnits, outcome


def test_models_and_migrations_agree(database: Database) -> None:
    """`alembic check` finds nothing to add: column for column, index for index."""
    command.check(alembic_config(database))


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    assert set(Base.metadata.tables) <= set(inspect(database.engine).get_table_names())


def test_what_was_stored_before_several_models_is_still_there(database: Database, submit: SubmitUnits) -> None:
    """A job that had ended, and one whose units had kept arrays and are run again."""
    (done, (unit_id,)), (waiting, kept_units) = submit(1), submit(2, combines=True)
    for unit in (unit_id, kept_units[0]):
        with database.writing() as session:
            claim = claim_unit(session, unit, "w", 30)
            assert claim is not None
            commit_unit(session, claim, outcome())
    config = alembic_config(database)
    command.downgrade(config, "0003")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE units SET kept = :kept WHERE id = :id"), {"kept": b"x", "id": kept_units[0]})
    command.upgrade(config, "head")
    with database.reading() as session:
        assert models_of(session, [done, waiting]) == {done: ["efficientnet_lite0"], waiting: ["efficientnet_lite0"]}
        metrics, artifacts = results_of(session, done)
        assert [metric.model for metric in metrics] == ["efficientnet_lite0"]
        assert [artifact.model for artifact in artifacts] == ["efficientnet_lite0"] * 2
        assert results_of(session, waiting) == ([], [])
        assert {unit.state for unit in session.scalars(select(Unit).where(Unit.job_id == waiting))} == {"queued"}


def test_what_was_stored_before_keys_is_still_its_owners(database: Database, submit: SubmitUnits) -> None:
    """A repeated submission still gives the same job, and pictures can still be used."""
    job_id, _ = submit(key="k")
    config = alembic_config(database)
    command.downgrade(config, "0005")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET idempotency_key = 'k'"))
    command.upgrade(config, "head")
    with database.reading() as session:
        found = find_by_idempotency_key(session, "k", NOBODY)
        assert found is not None
        assert found.id == job_id
        (image_id,) = images_of(session, job_id)
        assert find_image(session, image_id, NOBODY) is not None


def test_down_and_up_again(database: Database) -> None:
    config = alembic_config(database)
    command.downgrade(config, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    command.upgrade(config, "head")
    command.check(config)
