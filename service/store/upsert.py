"""INSERT … ON CONFLICT, which SQLite and PostgreSQL both have and SQLAlchemy spells once for each."""

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.store.tables import Base


def insert_ignoring(session: Session, table: type[Base], **values: Any) -> None:
    """Insert a row unless it is there."""
    session.execute(_insert(session, table).values(**values).on_conflict_do_nothing())


def insert_adding(session: Session, table: type[Base], key: dict[str, Any], numbers: dict[str, float]) -> None:
    """Insert a row, or add these numbers to the row with this key."""
    insert = _insert(session, table).values(**key, **numbers)
    columns = table.__table__.c
    added = {name: columns[name] + insert.excluded[name] for name in numbers}
    session.execute(insert.on_conflict_do_update(index_elements=list(key), set_=added))


def insert_setting(session: Session, table: type[Base], key: dict[str, Any], values: dict[str, Any]) -> None:
    """Insert a row, or set these values in the row with this key."""
    insert = _insert(session, table).values(**key, **values)
    session.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))


def _insert(session: Session, table: type[Base]) -> Any:
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    return dialect.insert(table)
