"""What an analysis gives, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from occluscope.errors import FieldError, InvalidInputError

if TYPE_CHECKING:
    from occluscope.models.card import ModelCard
    from occluscope.models.loading import LoadedModel
    from occluscope.pictures.preparation import Picture
    from occluscope.results import Metric, NamedResult


class Parameters(BaseModel):
    """Base of every analysis's parameters: unknown names are refused and nothing is coerced silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class ImageRef:
    """A picture as the control plane knows it: its id and its size in pixels, upright."""

    id: str
    width: int
    height: int


@dataclass(frozen=True)
class Unit:
    """A piece of a job that one worker does in one go.

    images: ids of the pictures it needs.
    steps: how much work it is, in whatever the analysis counts (occlusion: windows); its progress runs to this.
    payload: what else `compute` must know, as JSON.
    """

    images: tuple[str, ...]
    steps: int
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultSpec:
    """A result that an analysis gives. kind: one of `occluscope.results.KINDS`."""

    name: str
    kind: str
    title: str
    description: str


@dataclass(frozen=True)
class MetricSpec:
    """A number that an analysis gives. unit: as in `occluscope.results.Metric`."""

    name: str
    title: str
    description: str
    unit: str | None = None


@dataclass(frozen=True)
class Part:
    """What a unit that succeeded kept for later stages. kept: by name; an array is read whenever it is looked at."""

    unit: Unit
    kept: Mapping[str, np.ndarray]


Before = Mapping[str, Sequence[Part]]  # what earlier stages kept, by their names; parts in their plan's order


@dataclass(frozen=True)
class Stage:
    """A stage after the first. name: also of the function of `compute.py` that computes its units (`ComputeLater`).

    plan: from the parameters, the model's card, the job's pictures and what the stages before kept to the units. It
    runs once the stage before has ended and one of its units succeeded, and is pure. A stage without units is skipped.
    """

    name: str
    plan: Callable[[Any, ModelCard, Sequence[ImageRef], Before], list[Unit]]


FIRST: Final = "work"  # name of every analysis's first stage


@dataclass(frozen=True)
class AnalysisSpec:
    """The torch-free half of an analysis.

    plan: splits a job into the units of its first stage. It is also where parameters are held against the model's card
    and the pictures: it raises `InvalidInputError` with paths below ``params``. Its last argument are the pictures that
    the parameters name, by id.
    later: the stages after the first, in their order; each model of a job goes through them by itself.
    headline: name of the result that a person should see first.
    named_images: the pictures that parameters name beside the job's own (a mask), by their path below ``params``.
    order: its place among all analyses where a person chooses; the lowest first.
    """

    name: str
    title: str
    summary: str
    parameters: type[Parameters]
    plan: Callable[[Any, ModelCard, Sequence[ImageRef], Mapping[str, ImageRef]], list[Unit]]
    results: tuple[ResultSpec, ...]
    metrics: tuple[MetricSpec, ...]
    headline: str
    named_images: Callable[[Any], dict[str, str]] = lambda _params: {}
    later: tuple[Stage, ...] = ()
    order: int = 100

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of all stages, in their order."""
        return (FIRST, *(stage.name for stage in self.later))

    def stages_before(self, name: str) -> tuple[str, ...]:
        """The names of the stages before one of them."""
        return self.stages[: self.stages.index(name)]

    def stages_after(self, name: str) -> tuple[Stage, ...]:
        """The stages that follow one of this name; none where it is the last, or no stage of this analysis."""
        return self.later[self.stages.index(name) :] if name in self.stages else ()

    def parse(self, params: Any) -> Parameters:
        """Validate parameters as they came over the wire.

        Raises
        ------
        InvalidInputError
            With one error for each field that breaks a rule.
        """
        try:
            return self.parameters.model_validate(params)
        except ValidationError as error:
            raise InvalidInputError(field_errors(error, "params")) from None


@dataclass(frozen=True)
class Outcome:
    """What one unit gave, or of that what it did not give through its `Sink`.

    kept: arrays for later stages, by name; they are gone when the job has ended.
    """

    results: list[NamedResult]
    metrics: list[Metric]
    kept: dict[str, np.ndarray] = field(default_factory=dict)


class Report(Protocol):
    """Where an analysis tells how far it is.

    steps: done so far. preview: gives results as they stand, for a person who watches; called only when somebody
    wants them. It may raise `UnitAbortedError` to end the work.
    """

    def __call__(self, steps: int, preview: Callable[[], list[NamedResult]] | None = None, /) -> None: ...


class Sink(Report, Protocol):
    """A report that also takes results as they come: what a unit gives need not fit into memory together.

    What was given and what the unit's `Outcome` has at its end are one list, in that order. Nobody is shown any of it
    before the unit has succeeded; where the unit ends otherwise, or is computed again, nothing of it is left.
    """

    def give(self, results: Iterable[NamedResult] = (), metrics: Iterable[Metric] = ()) -> None:
        """Take results and numbers, one after the other. A result is given once: no two of a unit have the same name,
        variant and picture. It may raise `UnitAbortedError` to end the work.
        """


class Compute(Protocol):
    """The half of an analysis that runs the model.

    pictures: the unit's pictures, prepared, in the order of `Unit.images`.
    """

    def __call__(
        self,
        model: LoadedModel,
        pictures: Sequence[Picture],
        params: Any,
        unit: Unit,
        report: Sink,
    ) -> Outcome: ...


@dataclass(frozen=True)
class Work:
    """What a unit of a later stage is computed from.

    pictures: the unit's, prepared, in the order of `Unit.images`. before: what the stages before kept. model: loads
    the model; a stage that does not call it needs none.
    """

    card: ModelCard
    params: Any
    unit: Unit
    pictures: Sequence[Picture]
    before: Before
    model: Callable[[], LoadedModel]


class ComputeLater(Protocol):
    """Computes a unit of a later stage."""

    def __call__(self, work: Work, report: Sink, /) -> Outcome: ...


def field_errors(error: ValidationError, *prefix: str) -> list[FieldError]:
    """Pydantic's findings as field errors, each path below `prefix`."""
    return [
        FieldError(".".join([*prefix, *(str(step) for step in finding["loc"])]), _message(dict(finding)))
        for finding in error.errors(include_url=False)
    ]


def _message(finding: dict[str, Any]) -> str:
    message = str(finding["msg"]).removeprefix("Value error, ")
    given = finding.get("input")
    if finding["type"] == "missing" or not isinstance(given, str | int | float | bool):
        return message
    shown = repr(given)
    return f"{message} (given {shown if len(shown) <= 80 else shown[:77] + '…'})"
