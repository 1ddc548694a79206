"""Writing that waits while the database is unreachable or full."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from service.store.database import Database, is_outage
from service.store.planning import units_made

_FIRST_PAUSE_SECONDS: Final = 0.1  # between two attempts
_LONGEST_PAUSE_SECONDS: Final = 2.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Written:
    """The result of a write. held: whether the claim was still valid and it was written. units_made: queued by it."""

    held: bool
    units_made: int = 0


def write_patiently(
    database: Database, write: Callable[[Session], bool], give_up_after: Callable[[float], bool]
) -> Written:
    """Write something under a claim in its own transaction, and retry while the database is unreachable.

    write: returns false if the claim is gone. give_up_after: waits this many seconds and returns whether to stop
    retrying.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            with database.writing() as session:
                held = write(session)
        except (OperationalError, InterfaceError) as error:
            if not is_outage(error):
                raise
            _log.warning("not written, database out of reach", error=str(error.orig), again_in_seconds=pause)
        else:
            return Written(held, units_made(session))
        if give_up_after(pause):
            return Written(held=False)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
