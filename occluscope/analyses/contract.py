"""The contract of an analysis: what it defines, what it receives, and what it returns."""

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
    """Base of every analysis's parameters: unknown names are errors, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class ImageRef:
    """A picture without its pixels: its id, and its upright size in pixels."""

    id: str
    width: int
    height: int


@dataclass(frozen=True)
class Unit:
    """A piece of a job, computed by one worker at a time.

    images: ids of the pictures that it needs.
    steps: how many steps it has, where progress ends. The analysis chooses what a step is (occlusion: a window).
    payload: further arguments for `compute`, as JSON.
    """

    images: tuple[str, ...]
    steps: int
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultSpec:
    """Describes a result of an analysis. kind: one of `occluscope.results.KINDS`."""

    name: str
    kind: str
    title: str
    description: str


@dataclass(frozen=True)
class MetricSpec:
    """Describes a number of an analysis. unit: as in `occluscope.results.Metric`."""

    name: str
    title: str
    description: str
    unit: str | None = None


@dataclass(frozen=True)
class Part:
    """A unit that succeeded, and the arrays that it kept for later stages. kept: by name; each access reads again."""

    unit: Unit
    kept: Mapping[str, np.ndarray]


Before = Mapping[str, Sequence[Part]]  # the parts of earlier stages by stage name, in the order of the stage's plan


@dataclass(frozen=True)
class Stage:
    """A stage after the first. name: also of the function in `compute.py` that computes its units (`ComputeLater`).

    plan: a pure function from the parameters, the model's card, the job's pictures and the parts of earlier stages to
    the units. It is called when the stage before has ended and at least one of its units succeeded. A stage without
    units is skipped.
    """

    name: str
    plan: Callable[[Any, ModelCard, Sequence[ImageRef], Before], list[Unit]]


FIRST: Final = "work"  # name of every analysis's first stage


@dataclass(frozen=True)
class AnalysisSpec:
    """The torch-free half of an analysis.

    plan: splits a job into the units of its first stage. It also checks the parameters against the model's card and the
    pictures, and raises `InvalidInputError` with paths below ``params``. Its last argument has the pictures that the
    parameters name, by id.
    later: the stages after the first, in order. Each model of a job goes through them independently.
    headline: name of the result that is shown first.
    named_images: ids of further pictures that the parameters name (a mask), by their path below ``params``.
    order: position in lists of analyses, the lowest first.
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
        """The names of all stages, in order."""
        return (FIRST, *(stage.name for stage in self.later))

    def stages_before(self, name: str) -> tuple[str, ...]:
        """The names of the stages before the one of this name."""
        return self.stages[: self.stages.index(name)]

    def stages_after(self, name: str) -> tuple[Stage, ...]:
        """The stages after the one of this name; empty for the last stage and for an unknown name."""
        return self.later[self.stages.index(name) :] if name in self.stages else ()

    def parse(self, params: Any) -> Parameters:
        """Validate the parameters of a request.

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
    """The results and numbers of one unit, without those that it gave to its `Sink` before.

    kept: arrays for later stages, by name; they are deleted when the job has ended.
    """

    results: list[NamedResult]
    metrics: list[Metric]
    kept: dict[str, np.ndarray] = field(default_factory=dict)


class Report(Protocol):
    """Reports the progress of a unit.

    steps: number of steps done so far. preview: returns intermediate results for people who watch the job; it is called
    only when they are due. A call may raise `UnitAbortedError` to end the unit.
    """

    def __call__(self, steps: int, preview: Callable[[], list[NamedResult]] | None = None, /) -> None: ...


class Sink(Report, Protocol):
    """A report that also accepts results while the unit runs, so that they need not be in memory together.

    The results given here and those of the unit's `Outcome` form one list, in that order. They become visible when the
    unit has succeeded. If the unit fails, or is computed again, they are deleted.
    """

    def give(self, results: Iterable[NamedResult] = (), metrics: Iterable[Metric] = ()) -> None:
        """Accept results and numbers, one after the other. No two results of a unit may have the same name, variant and
        picture. A call may raise `UnitAbortedError` to end the unit. A unit never succeeds after a call that raised it,
        or that refused a result, even if the error is caught.
        """


class Compute(Protocol):
    """Computes a unit of the first stage.

    pictures: the unit's pictures in the order of `Unit.images`. In a worker each is read and prepared when it is needed
    (see `occluscope.pictures.source.PictureSource`).
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
    """Everything that a unit is computed from.

    pictures: as for `Compute`. before: the parts of earlier stages. model: loads the model; a stage that needs no model
    does not call it.
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
    """The errors that pydantic found as field errors, with paths below `prefix`."""
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
