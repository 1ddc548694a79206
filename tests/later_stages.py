"""An analysis's later stages run in this process, as the service runs them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from occluscope import analyses
from occluscope.analyses.contract import FIRST, Outcome, Part, Report, Work
from occluscope.analyses.gathering import Gathered
from occluscope.models.card import ModelCard
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Picture


def silent(*_: Any) -> None:
    """A report that nobody hears."""


def no_model() -> LoadedModel:
    """For stages that need none."""
    raise AssertionError


def run_later(
    analysis: str,
    card: ModelCard,
    params: Any,
    parts: Sequence[Part],
    report: Report = silent,
    *,
    model: Callable[[], LoadedModel] = no_model,
    pictures: Mapping[str, Picture] | None = None,
) -> Outcome:
    """What the later stages give after these parts of the first. pictures: by id."""
    before: dict[str, Sequence[Part]] = {FIRST: parts}
    together = Outcome([], [])
    for stage in analyses.spec(analysis).later:
        compute, ended = analyses.compute_later(analysis, stage.name), []
        for unit in stage.plan(params, card, [], before):
            prepared = [(pictures or {})[image] for image in unit.images]
            sink = Gathered(report)
            outcome = sink.outcome(compute(Work(card, params, unit, prepared, dict(before), model), sink))
            ended.append(Part(unit, outcome.kept))
            together.results.extend(outcome.results)
            together.metrics.extend(outcome.metrics)
        before[stage.name] = ended
    return together
