"""What a unit reports while it is computed: its progress, previews of its results, and results."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from occluscope.errors import UnitAbortedError
from occluscope.results import Metric, NamedResult
from service.settings import Settings
from service.store.database import Database
from service.store.given import Given
from service.store.leases import Claim
from service.store.packing import PackedResult, pack_results
from service.store.units import forget_earlier, give_results, report_progress
from workers.activity import Activity
from workers.giving import Giving
from workers.patience import write_patiently

Preview = Callable[[], list[NamedResult]]
_log = structlog.get_logger(__name__)


class UnitReport:
    """Writes a unit's progress now and then, stores what it gives, and ends its computation when it is not wanted.

    lost: set once the claim is gone. stopping: set when the worker was asked to end.
    """

    def __init__(
        self,
        database: Database,
        config: Settings,
        claim: Claim,
        activity: Activity,
        *,
        lost: threading.Event,
        stopping: threading.Event,
    ) -> None:
        self._activity = activity
        self._database = database
        self._interval = config.progress_seconds
        self._claim = claim
        self._lost = lost
        self._stopping = stopping
        self._preview_interval = config.preview_seconds
        self._written = self._previewed = 0.0
        self._steps_done = 0
        self.given = Giving(self._store)

    def forget_earlier(self) -> None:
        """Delete what earlier claims of the unit gave, in portions that hold up no other writer for long."""
        is_all = not self._claim.has_given

        def write(session: Session) -> bool:
            nonlocal is_all
            held, is_all = forget_earlier(session, self._claim)
            return held

        while not is_all:
            self._activity.note_progress()
            self._require_wanted()
            if not write_patiently(self._database, write, self.is_unwanted_after).held:
                self._lost.set()
                self._require_wanted()

    def wait(self) -> None:
        """Report that the unit waits, for a picture: it may go on for long, and is no progress of the worker's."""
        self._require_wanted()
        self._write_now_and_then(self._steps_done)
        self._require_wanted()

    def note_progress(self) -> None:
        """Note that the worker has got on, though the unit is no step further."""
        self._activity.note_progress()

    def __call__(self, steps_done: int, preview: Preview | None = None, /) -> None:
        self._steps_done = steps_done
        self._activity.note_progress()
        self._require_wanted()
        self._write_now_and_then(steps_done, preview)
        self._require_wanted()

    def give(self, results: Iterable[NamedResult] = (), metrics: Iterable[Metric] = ()) -> None:
        """As of `occluscope.analyses.contract.Sink`."""
        self._activity.note_progress()
        self._require_wanted()
        self.given.add(results, metrics)

    def _require_wanted(self) -> None:
        with self.given.refusing():
            if self._stopping.is_set():
                raise UnitAbortedError("the worker stops")
            if self._lost.is_set():
                raise UnitAbortedError("the claim is gone")

    def _write_now_and_then(self, steps_done: int, preview: Preview | None = None) -> None:
        moment = time.monotonic()
        if moment - self._written >= self._interval:
            self._written = moment
            self._write(steps_done, self._shown(preview, moment))

    def _store(self, before: Given, results: Sequence[PackedResult], metrics: Sequence[Metric]) -> None:
        tries = count()

        def write(session: Session) -> bool:
            return give_results(session, self._claim, before, results, metrics, again=next(tries) > 0)

        written = write_patiently(self._database, write, self.is_unwanted_after)
        if not written.held and not self._stopping.is_set():
            self._lost.set()
        self._require_wanted()

    def is_unwanted_after(self, seconds: float) -> bool:
        """Wait for a database that is away; whether the unit is wanted no more."""
        self._activity.note_progress()
        return self._lost.is_set() or self._stopping.wait(seconds)

    def _shown(self, preview: Preview | None, moment: float) -> list[PackedResult]:
        """The preview, if it is time for a new one; packed here, before the database's turn."""
        if preview is None or moment - self._previewed < self._preview_interval:
            return []
        self._previewed = moment
        return pack_results(preview())

    def _write(self, steps_done: int, previews: list[PackedResult]) -> None:
        try:
            with self._database.writing() as session:
                if not report_progress(session, self._claim, steps_done, previews):
                    self._lost.set()
        except SQLAlchemyError as error:  # the unit itself is well; its commit will wait for the database
            _log.warning("progress not written", error=str(error))
