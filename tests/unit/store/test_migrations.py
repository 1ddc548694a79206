from alembic import command
from sqlalchemy import inspect

from service.store.database import Database
from service.store.migrate import alembic_config, migrate
from service.store.tables import Base


def test_models_and_migrations_agree(database: Database) -> None:
    """`alembic check` finds nothing to add: column for column, index for index."""
    command.check(alembic_config(database))


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    assert set(Base.metadata.tables) <= set(inspect(database.engine).get_table_names())


def test_down_and_up_again(database: Database) -> None:
    config = alembic_config(database)
    command.downgrade(config, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    command.upgrade(config, "head")
    command.check(config)
