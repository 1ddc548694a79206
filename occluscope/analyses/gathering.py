"""Results gathered in memory, for whoever runs an analysis without the service."""

from collections.abc import Callable, Iterable

from occluscope.analyses.contract import Outcome, Report
from occluscope.results import Metric, NamedResult


def _nobody(_steps: int, _preview: Callable[[], list[NamedResult]] | None = None, /) -> None:
    """Hears progress and does nothing."""


class Gathered:
    """A `Sink` that keeps what it is given. report: is told of progress.

    >>> sink = Gathered()  # doctest: +SKIP
    >>> outcome = sink.outcome(compute(model, pictures, params, unit, sink))
    """

    def __init__(self, report: Report = _nobody) -> None:
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
        """All that the unit gave. rest: what it gave at its end."""
        return Outcome([*self.results, *rest.results], [*self.metrics, *rest.metrics], rest.kept)
