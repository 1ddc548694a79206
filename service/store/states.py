"""The states of jobs and units."""

from enum import IntEnum, StrEnum
from typing import Final

from occluscope.wire import DeliveryState, JobState

__all__ = ["COMPARE", "ENDED_JOB", "ENDED_UNIT", "DeliveryState", "JobState", "Priority", "UnitState"]


class UnitState(StrEnum):
    """As of a job; a unit that was given back, or whose worker died, goes from running to queued again."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(IntEnum):
    """The lower number has more turns. ``interactive``: somebody waits for the result; ``batch``: everything else."""

    INTERACTIVE = 0
    BATCH = 1

    @property
    def label(self) -> str:
        """The name in the API."""
        return self.name.lower()

    @classmethod
    def labelled(cls, label: str) -> "Priority":
        """The priority of this name."""
        return cls[label.upper()]


ENDED_JOB: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
ENDED_UNIT: Final = frozenset({UnitState.SUCCEEDED, UnitState.FAILED, UnitState.CANCELLED})
NO_ANALYSIS: Final = ""  # of a job that inspects a model
INSPECT: Final = "inspect"  # its only stage
COMPARE: Final = "compare"  # the stage after all models' own, over what they gave; its units have no model
