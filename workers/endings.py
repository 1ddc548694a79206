"""How a unit ends, and how each ending is written: all of it or nothing, and only while the claim holds."""

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from occluscope.engine.memory import is_out_of_memory
from occluscope.errors import OccluscopeError, UnitAbortedError
from occluscope.models.card import ModelCard
from service.store.database import is_outage
from service.store.given import NOTHING, Given
from service.store.inspections import commit_inspection
from service.store.leases import Claim, give_back_unit
from service.store.packing import PackedOutcome
from service.store.units import commit_unit, fail_unit

# Outages during one unit; after so many its own data may cause them, and each uses up an attempt.
MOST_OUTAGES: Final = 20
_LONGEST_REASON: Final = 2000  # characters


class Ending(Protocol):
    """How a unit ends. name: in the worker's log."""

    name: ClassVar[str]

    def write(self, session: Session, claim: Claim) -> bool:
        """Write the ending; false, with nothing written, if the claim is gone."""


@dataclass(frozen=True)
class Succeeded:
    """The unit is done. before: what it gave that is already stored.

    outcome: the rest, packed once, before the transaction, however often that is retried.
    """

    outcome: PackedOutcome
    before: Given = NOTHING
    name: ClassVar[str] = "unit succeeded"

    def write(self, session: Session, claim: Claim) -> bool:
        return commit_unit(session, claim, self.outcome, self.before)


@dataclass(frozen=True)
class Inspected:
    """The unit inspected a model. card: of the model."""

    card: ModelCard
    name: ClassVar[str] = "model inspected"

    def write(self, session: Session, claim: Claim) -> bool:
        return commit_inspection(session, claim, self.card)


@dataclass(frozen=True)
class Failed:
    """The unit failed and is not retried. reason: for the job's user; errors of libraries may have any text."""

    reason: str
    name: ClassVar[str] = "unit failed"

    def write(self, session: Session, claim: Claim) -> bool:
        storable = self.reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
        return fail_unit(session, claim, storable[:_LONGEST_REASON])


@dataclass(frozen=True)
class GivenBack:
    """The unit is queued again. failed_attempt, outage: see `service.store.leases.give_back_unit`."""

    failed_attempt: bool = False
    outage: bool = False
    name: ClassVar[str] = "unit given back"

    def write(self, session: Session, claim: Claim) -> bool:
        return give_back_unit(session, claim, failed_attempt=self.failed_attempt, outage=self.outage)


def ending_after(error: BaseException, claim: Claim, max_attempts: int, *, stopping: bool) -> Ending:
    """The ending of a unit whose computation raised this. stopping: whether the worker was asked to end."""
    if isinstance(error, UnitAbortedError):
        return GivenBack()
    if isinstance(error, OperationalError | InterfaceError):
        return _after_database_error(error, claim, max_attempts)
    if isinstance(error, OccluscopeError):
        return Failed(str(error))
    if stopping and not isinstance(error, Exception):  # raised by a signal, not by the model
        return GivenBack()
    if is_out_of_memory(error):
        return Failed(f"out of memory while running {claim.model or claim.stage}")
    return Failed(f"internal error ({type(error).__name__}); the worker's log has unit {claim.unit_id}")


def _after_database_error(error: OperationalError | InterfaceError, claim: Claim, max_attempts: int) -> Ending:
    """An outage of the database does not use up an attempt, up to `MOST_OUTAGES`."""
    if is_outage(error) and claim.outages < MOST_OUTAGES:
        return GivenBack(outage=True)
    if claim.attempts < max_attempts:
        return GivenBack(failed_attempt=True)
    kind = type(error.orig).__name__
    return Failed(
        f"the database failed {claim.attempts} times under it ({kind}); the worker's log has unit {claim.unit_id}"
    )
