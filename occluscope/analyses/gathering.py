"""Results gathered in memory, to run an analysis without the service."""

from collections.abc import Callable, Iterable

from occluscope.analyses.contract import Outcome, Report
from occluscope.results import Metric, NamedResult


def _ignored(_steps: int, _preview: Callable[[], list[NamedResult]] | None = None, /) -> None:
    """A report that does nothing."""


class Gathered:
    """A `Sink` that keeps results in lists. report: called with the progress.

    >>> sink = Gathered()  # doctest: +SKIP
    >>> outcome = sink.outcome(compute(model, pictures, params, unit, sink))
    """

    def __init__(self, report: Report = _ignored) -> None:
        self._report = report
        self.results: list[NamedResult] = []
        self.metrics: list[Metric] = []

    def __call__(self, steps: int, preview: Callable[[], list[NamedResult]] | None = None, /) -> None:
        self._report(steps, preview)

    def give(self, results: Iterable[NamedResult] = (), metrics: Iterable[Metric] = ()) -> None:
        """Keep them."""
        self.results.extend(results)
        self.metrics.extend(metrics)

    def outcome(self, rest: Outcome) -> Outcome:
        """All results of the unit. rest: the outcome that it returned."""
        return Outcome([*self.results, *rest.results], [*self.metrics, *rest.metrics], rest.kept)
