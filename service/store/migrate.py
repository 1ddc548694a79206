"""Bringing a database to the newest schema."""

from importlib.resources import files

from alembic import command
from alembic.config import Config

from service.store.database import Database


def alembic_config(database: Database) -> Config:
    """Alembic's configuration for a database that is already connected to."""
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["engine"] = database.engine
    return config


def migrate(database: Database) -> None:
    """Apply every migration that is not applied yet."""
    command.upgrade(alembic_config(database), "head")
