"""What a unit gives before its end: packed at once, and held until it is worth a transaction."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from occluscope.analyses.contract import Outcome
from occluscope.results import Metric, NamedResult
from service.store.given import NOTHING, Given
from service.store.packing import (
    PackedOutcome,
    PackedResult,
    pack_metrics,
    pack_outcome,
    pack_results,
    require_each_once,
)

MOST_HELD_BYTES: Final = 4 * 2**20
_METRIC_BYTES: Final = 200  # about; so that numbers alone are stored now and then too

Store = Callable[[Given, Sequence[PackedResult], Sequence[Metric]], None]


class Giving:
    """One unit's results as they come. store: writes some under the unit's claim, behind those given before.

    refusal: why something was not accepted, if so; the unit lacks it, whatever else it gives.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.stored = NOTHING
        self.refusal: Exception | None = None
        self._results: list[PackedResult] = []
        self._metrics: list[Metric] = []
        self._held_bytes = 0

    def add(self, results: Iterable[NamedResult], metrics: Iterable[Metric]) -> None:
        """Pack what is given, and store all that is held before it becomes too much."""
        for named in results:
            with self.refusing():
                (packed,) = pack_results([named])
                self._make_room(packed.stored_bytes)
            self._results.append(packed)
        for metric in metrics:
            with self.refusing():
                (number,) = pack_metrics([metric])
                self._make_room(_METRIC_BYTES)
            self._metrics.append(number)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Remember the first error that the block raises: an analysis may catch it, and must not succeed then."""
        try:
            yield
        except Exception as error:
            self.refusal = self.refusal or error
            raise

    def rest(self, outcome: Outcome) -> PackedOutcome:
        """What is to be stored at the unit's end: what is held, and its outcome. Raises the refusal, if any."""
        if self.refusal:
            raise self.refusal
        packed = pack_outcome(outcome)
        results = [*self._results, *packed.results]
        require_each_once(results)
        return PackedOutcome(results, [*self._metrics, *packed.metrics], packed.kept)

    def _make_room(self, size: int) -> None:
        if self._held_bytes and self._held_bytes + size > MOST_HELD_BYTES:
            require_each_once(self._results)
            self._store(self.stored, self._results, self._metrics)
            self.stored = self.stored.plus(self._results, self._metrics)
            self._results, self._metrics, self._held_bytes = [], [], 0
        self._held_bytes += size
