"""invariance: parameters, work units and names of results; no torch."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from occluscope.analyses import layer_choice
from occluscope.analyses.contract import AnalysisSpec, Before, ImageRef, MetricSpec, Parameters, ResultSpec, Stage, Unit
from occluscope.analyses.invariance.families import FAMILIES, Family, FamilyName, strengths
from occluscope.analyses.layer_choice import Layers, layer_errors
from occluscope.analyses.target_choice import target_errors
from occluscope.errors import InvalidInputError
from occluscope.models.card import ModelCard

MAX_STEPS: Final = 361
MAX_FEATURES: Final = 2**24  # of all layers, for one picture
COMPARED: Final = 32  # pictures whose features are compared with each other
SINGLE_PIXELS: Final = 8  # one-pixel shifts over which the change of the prediction is measured


class ChosenFamily(Parameters):
    """A family with its range."""

    family: FamilyName
    range: tuple[float, float] | None = Field(default=None, description="From and to; by default the family's own.")
    steps: int | None = Field(
        default=None, ge=2, le=MAX_STEPS, description="Evenly spaced strengths; by default the family's own."
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_as_tuples(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("range"), list):
            return {**given, "range": tuple(given["range"])}
        return given

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        (low, high), about = self.reach, FAMILIES[self.family]
        if self.family == "flip":
            if self.range is not None or self.steps is not None:
                raise ValueError("flip has no range and no steps: it is none, left–right, upside down, both")
        elif not about.limits[0] <= low < high <= about.limits[1]:
            raise ValueError(
                f"{self.family}: a range goes from low to high within {about.limits[0]:g} … {about.limits[1]:g}"
            )
        elif not low <= about.identity <= high:
            raise ValueError(f"{self.family}: the range must hold {about.identity:g}, the picture as it is")
        return self

    @property
    def about(self) -> Family:
        """The family's description."""
        return FAMILIES[self.family]

    @property
    def reach(self) -> tuple[float, float]:
        """The first and the last strength."""
        return self.range or self.about.normal

    def strengths(self) -> np.ndarray:
        """All strengths with the identity, ascending: float64."""
        return strengths(self.about, self.reach, self.steps or self.about.steps)

    def identity(self) -> int:
        """Position of the unchanged picture among the strengths."""
        return int(np.flatnonzero(self.strengths() == self.about.identity)[0])


def _families(given: Any) -> Any:
    """One family or a list of them, each as a name or an object."""
    listed = list(given) if isinstance(given, list | tuple) else [given]
    return tuple({"family": one} if isinstance(one, str) else one for one in listed)


def _each_once(families: tuple[ChosenFamily, ...]) -> tuple[ChosenFamily, ...]:
    names = [one.family for one in families]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is there twice")
    return families


_Named = FamilyName | ChosenFamily
_Listed = Annotated[list[_Named], Field(min_length=1, max_length=len(FAMILIES))]


class InvarianceParameters(Parameters):
    """What can be set."""

    families: Annotated[
        tuple[ChosenFamily, ...],
        AfterValidator(_each_once),
        Field(
            min_length=1, max_length=len(FAMILIES)
        ),  # counted after the entries are valid, so that a wrong entry gives one error only
        BeforeValidator(_families, json_schema_input_type=_Listed | _Named),
    ] = Field(
        default=tuple(
            ChosenFamily(family=name) for name in ("translate_x", "translate_y", "scale", "rotate", "brightness")
        ),
        title="Transformations",
        description=f"Of {', '.join(FAMILIES)}; each by name or as "
        '{"family": "rotate", "range": [-30, 30], "steps": 13}. '
        "Shifts in pixels of the model's input, turns in degrees; scale, brightness, contrast, saturation as factors.",
    )
    layers: Layers = Field(
        default=("first", 0.5, "last"),
        title="Layers",
        description=f"Where features are compared: {layer_choice.DESCRIPTION}",
    )
    target: int | str = Field(
        default="top1",
        title="Target",
        description="Class whose probability is followed: 'top1' (each picture's own), an index or a label.",
    )
    fill: Literal["grey", "edge", "reflect"] = Field(
        default="grey",
        title="Fill",
        description="What comes in from beyond the picture: the normalisation mean, the border's pixels, or the "
        "picture mirrored. Where the picture goes on beyond what the model sees of it, the picture comes in.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, title="Seed", description="Of the noise.")


def plan(
    params: InvarianceParameters, card: ModelCard, images: Sequence[ImageRef], _named: Mapping[str, ImageRef]
) -> list[Unit]:
    """One unit for each picture, with a step for every copy that the model sees.

    Raises
    ------
    InvalidInputError
        The model has no such layer or class, or a layer has too many features.
    """
    errors = [*layer_errors(params.layers, card, MAX_FEATURES), *target_errors(params.target, card)]
    if errors:
        raise InvalidInputError(errors)
    steps = 1 + sum(len(one.strengths()) - 1 + len(single_pixels(one)) for one in params.families)
    compared = set(np.linspace(0, len(images) - 1, min(len(images), COMPARED)).round().astype(int).tolist())
    return [
        Unit(images=(image.id,), steps=steps, payload={"compared": number in compared and len(images) > 1})
        for number, image in enumerate(images)
    ]


def plan_means(
    _params: InvarianceParameters, _card: ModelCard, _images: Sequence[ImageRef], _before: Before
) -> list[Unit]:
    """One unit for all pictures."""
    return [Unit(images=(), steps=1)]


def single_pixels(chosen: ChosenFamily) -> np.ndarray:
    """Further strengths that show the effect of a shift by one pixel: float64; only translations have any."""
    if chosen.family not in ("translate_x", "translate_y"):
        return np.zeros(0)
    return np.arange(1, SINGLE_PIXELS + 1, dtype=float)


SPEC: Final = AnalysisSpec(
    name="invariance",
    title="Invariance",
    summary="Moves, scales, turns, darkens the picture, more and more: which layers notice, and when does the "
    "prediction break?",
    parameters=InvarianceParameters,
    plan=plan,
    later=(Stage("means", plan_means),),
    results=(
        ResultSpec(
            "curves",
            "curves",
            "Curves",
            "Probability of the target, and the distance of each layer's features from the unchanged picture's: "
            "Euclidean ‖f(x) − f(Tx)‖ and cosine. Of one picture, with a strip of what the model sees.",
        ),
        ResultSpec(
            "mean_curves",
            "curves",
            "Mean over pictures",
            "Probability of each picture's target and distances of its features: mean ± standard deviation.",
        ),
        ResultSpec(
            "augmentations",
            "table",
            "What to train against",
            "The families, the weakest first: the share of the probability that is kept on average over the range, "
            "where it falls below half, and the transform of torchvision.transforms.v2 that trains against it.",
        ),
        ResultSpec(
            "layers",
            "table",
            "Layers",
            "For each family and layer the mean distances, and with several pictures the invariance score "
            "(1 − mean distance ÷ mean distance between different pictures) and of its units the median normalised "
            "variance (0 is invariant) and the mean local firing (1 is invariant).",
        ),
        ResultSpec(
            "unit_variance",
            "matrix",
            "Normalised variance of units",
            "Each layer's units (channels, mean over places) from the most invariant to the least: standard deviation "
            "over the transformations ÷ over the pictures. 0 is invariant; 1 changes as much as between pictures.",
        ),
        ResultSpec(
            "unit_firing",
            "matrix",
            "Firing of units",
            "Goodfellow et al. 2009: of the pictures on which a unit fires, the share of transformed copies on which "
            "it still does. Units from the most invariant to the least.",
        ),
    ),
    metrics=(
        MetricSpec("base_probability", "Probability", "Of the target, picture as it is.", "probability"),
        MetricSpec(
            "probability_area",
            "Mean probability",
            "Area under the probability's curve ÷ length of the range.",
            "probability",
        ),
        MetricSpec(
            "tolerance_below",
            "Tolerance below",
            "Farthest strength below the identity with p ≥ p₀ / 2 all the way.",
        ),
        MetricSpec(
            "tolerance_above",
            "Tolerance above",
            "Farthest strength above the identity with p ≥ p₀ / 2 all the way.",
        ),
        MetricSpec(
            "single_pixel_change",
            "Change per pixel",
            f"Mean change of the probability per single pixel, over {SINGLE_PIXELS} of them (Azulay & Weiss 2018).",
            "probability",
        ),
        MetricSpec(
            "symmetry_order",
            "Order of symmetry",
            "Order of the rotational symmetry of a full turn's curve: of its probability, or of a layer's distance.",
        ),
        MetricSpec(
            "symmetry_strength",
            "Strength of symmetry",
            "Share of the curve's variance that repeats with that order (order 1: of the best order from 2 on).",
        ),
        MetricSpec(
            "invariance_score",
            "Invariance score",
            "1 − mean distance from the unchanged picture ÷ mean distance between different pictures, of a layer.",
        ),
    ),
    order=3,
    headline="mean_curves",
)
