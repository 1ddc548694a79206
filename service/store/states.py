"""The states of jobs and units."""

from enum import IntEnum, StrEnum
from typing import Final


class JobState(StrEnum):
    """``queued → running → succeeded | failed | cancelled``."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class UnitState(StrEnum):
    """As a job's; a unit given back or left by a dead worker goes from running to queued again."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DeliveryState(StrEnum):
    """``waiting → delivered | given_up``."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class UnitRole(StrEnum):
    """``work``: a unit of the plan. ``combine``: made when a model's have all ended, over what they kept.

    ``compare``: made when all models' units have ended, over what they gave.
    """

    WORK = "work"
    COMBINE = "combine"
    COMPARE = "compare"


class Priority(IntEnum):
    """The lower has more turns. ``interactive``: somebody waits for it; ``batch``: everything else."""

    INTERACTIVE = 0
    BATCH = 1

    @property
    def label(self) -> str:
        """As the API has it."""
        return self.name.lower()

    @classmethod
    def labelled(cls, label: str) -> "Priority":
        """The priority of this name."""
        return cls[label.upper()]


ENDED_JOB: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
ENDED_UNIT: Final = frozenset({UnitState.SUCCEEDED, UnitState.FAILED, UnitState.CANCELLED})
