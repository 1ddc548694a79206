"""What a unit's report says of its worker."""

import threading
from collections.abc import Callable

import pytest

from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.errors import UnitAbortedError
from service.settings import Settings
from service.store.database import Database
from service.store.images import add_image
from service.store.jobs import submit_job
from service.store.keys import NOBODY
from service.store.leases import Claim, claim_unit
from service.store.scheduling import due_unit
from tests.conftest import encode, random_picture
from workers.activity import Activity
from workers.reporting import UnitReport


class Counted(Activity):
    """Counts how often progress is noted."""

    notes = 0

    def note_progress(self) -> None:
        self.notes += 1
        super().note_progress()


@pytest.fixture
def claim(database: Database) -> Claim:
    image, _ = add_image(database, encode(random_picture(1)), NOBODY)
    with database.writing() as session:
        units = {"efficientnet_lite0": [PlannedUnit((image.id,), steps=4)]}
        submit_job(session, analysis="occlusion", params={}, images=[image.id], units=units, request_sha256="0" * 64)
        due = due_unit(session)
        claimed = claim_unit(session, due, "w", 30) if due else None
    assert claimed is not None
    return claimed


@pytest.mark.parametrize(
    ("tell", "is_progress"),
    [
        (lambda report: report(1), True),
        (lambda report: report.give(), True),
        (lambda report: report.note_progress(), True),
        (lambda report: report.wait(), False),
    ],
    ids=["a step", "results", "a picture that came", "waiting for a picture"],
)
def test_whoever_only_waits_gets_on_no_further(
    database: Database, claim: Claim, tell: Callable[[UnitReport], None], is_progress: bool
) -> None:
    """So the watchdog ends a worker whose picture never comes."""
    activity = Counted()
    tell(UnitReport(database, Settings(), claim, activity, lost=threading.Event(), stopping=threading.Event()))
    assert (activity.notes > 0) == is_progress


@pytest.mark.parametrize("event", ["lost", "stopping"])
def test_whoever_waits_is_told_when_it_is_in_vain(database: Database, claim: Claim, event: str) -> None:
    events = {"lost": threading.Event(), "stopping": threading.Event()}
    report = UnitReport(database, Settings(), claim, Activity(), **events)
    report.wait()
    events[event].set()
    with pytest.raises(UnitAbortedError):
        report.wait()
