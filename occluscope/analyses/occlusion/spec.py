"""occlusion: parameters, units and names of results; no torch."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from occluscope.analyses.contract import AnalysisSpec, ImageRef, MetricSpec, Parameters, ResultSpec, Unit
from occluscope.errors import FieldError, InvalidInputError
from occluscope.models.card import ModelCard
from occluscope.windows import count_positions

MAX_WINDOWS: Final = 100_000  # positions over one picture
MAX_LENGTH: Final = 100_000  # pixels; far over any model's input, so that arithmetic stays small


def _pair(given: Any) -> Any:
    """One number stands for a square; JSON's list becomes the tuple that strict validation wants."""
    if isinstance(given, int) and not isinstance(given, bool):
        return (given, given)
    return tuple(given) if isinstance(given, list) else given


def _triple(given: Any) -> Any:
    if isinstance(given, int) and not isinstance(given, bool):
        return (given, given, given)
    return tuple(given) if isinstance(given, list) else given


_Pixels = Annotated[int, Field(ge=1, le=MAX_LENGTH)]
_Level = Annotated[int, Field(ge=0, le=255)]
_PIXELS_SCHEMA: Final = {"type": "integer", "minimum": 1, "maximum": MAX_LENGTH}
_LEVEL_SCHEMA: Final = {"type": "integer", "minimum": 0, "maximum": 255}
HeightWidth = Annotated[
    tuple[_Pixels, _Pixels],
    BeforeValidator(_pair),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _PIXELS_SCHEMA, "minItems": 2, "maxItems": 2},
                _PIXELS_SCHEMA,
            ]
        }
    ),
]
Colour = Annotated[
    tuple[_Level, _Level, _Level],
    BeforeValidator(_triple),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _LEVEL_SCHEMA, "minItems": 3, "maxItems": 3},
                _LEVEL_SCHEMA,
            ]
        }
    ),
]


class OcclusionParameters(Parameters):
    """What can be set."""

    window: HeightWidth = Field(
        default=(32, 32),
        title="Window",
        description="Size of the occluding window, [height, width] or one number for a square; pixels of the "
        "model's input.",
    )
    stride: HeightWidth = Field(
        default=(16, 16),
        title="Stride",
        description="Steps between window positions, [down, across] or one number; pixels of the model's input.",
    )
    baseline: Literal["grey", "value", "image_mean", "window_mean", "blur", "noise", "gaussian"] = Field(
        default="grey",
        title="Baseline",
        description="What covers the window: 'grey' is the model's normalisation mean (0 after it, as Zeiler & "
        "Fergus), 'value' the colour in baseline_value, 'image_mean' the picture's own mean colour, 'window_mean' "
        "the window's, 'blur' the picture blurred, 'noise' random pixels, 'gaussian' the picture fading to grey "
        "towards the window's centre, without a hard border.",
    )
    baseline_value: Colour | None = Field(
        default=None,
        title="Baseline colour",
        description="RGB 0-255 for baseline 'value', [r, g, b] or one number for a grey.",
    )
    baseline_sigma: float = Field(
        default=10.0,
        gt=0,
        le=1000,
        title="Blur",
        description="Standard deviation of baseline 'blur'; pixels of the model's input.",
    )
    baseline_seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        title="Noise seed",
        description="Seed of baseline 'noise': the same seed, the same pixels.",
    )
    target: int | str = Field(
        default="top1",
        title="Target",
        description="The class whose probability is followed: 'top1' (the most probable without occlusion), "
        "a class index, or a label.",
    )
    method: Literal["exact", "naive"] = Field(
        default="exact",
        title="Method",
        description="'exact' computes only what each window changes, and gives the numbers of 'naive', which runs "
        "one whole forward pass a window. Models that cannot be traced are run by 'naive'.",
    )


def plan(params: OcclusionParameters, card: ModelCard, images: Sequence[ImageRef]) -> list[Unit]:
    """One unit a picture, a step a window.

    Raises
    ------
    InvalidInputError
        The window is larger than the model's input, there would be more than `MAX_WINDOWS` positions, the
        target is no class of the model, or baseline and baseline_value do not go together.
    """
    errors = [*_window_errors(params, card), *_baseline_errors(params)]
    if params.target != "top1":
        try:
            card.class_index(params.target)
        except LookupError as error:
            errors.append(FieldError("params.target", str(error.args[0])))
    if errors:
        raise InvalidInputError(errors)
    rows, columns = (count_positions(*axis) for axis in _axes(params, card))
    return [Unit(images=(image.id,), steps=rows * columns) for image in images]


def _axes(params: OcclusionParameters, card: ModelCard) -> list[tuple[int, int, int]]:
    return list(zip(card.input_size, params.window, params.stride, strict=True))


def _window_errors(params: OcclusionParameters, card: ModelCard) -> list[FieldError]:
    height, width = card.input_size
    if params.window[0] > height or params.window[1] > width:
        shown = f"{params.window[0]} × {params.window[1]}"
        message = f"the window ({shown}) is larger than the input of {card.name} ({height} × {width})"
        return [FieldError("params.window", message)]
    rows, columns = (count_positions(*axis) for axis in _axes(params, card))
    if rows * columns > MAX_WINDOWS:
        message = f"this stride gives {rows * columns:,} windows; the limit is {MAX_WINDOWS:,}"
        return [FieldError("params.stride", message)]
    return []


def _baseline_errors(params: OcclusionParameters) -> list[FieldError]:
    if params.baseline == "value" and params.baseline_value is None:
        return [FieldError("params.baseline_value", "baseline 'value' needs a colour, such as [0, 0, 0]")]
    if params.baseline != "value" and params.baseline_value is not None:
        message = f"goes with baseline 'value' only, and baseline is '{params.baseline}'"
        return [FieldError("params.baseline_value", message)]
    return []


SPEC: Final = AnalysisSpec(
    name="occlusion",
    title="Occlusion sensitivity",
    summary="Slides a covered window over the picture and records how the prediction changes: "
    "where it falls, the prediction stands on what was covered.",
    parameters=OcclusionParameters,
    plan=plan,
    results=(
        ResultSpec(
            "pixel_map",
            "heatmap",
            "Drop per pixel",
            "At each pixel of the input the mean drop over the windows that covered it.",
        ),
        ResultSpec(
            "drop_map",
            "heatmap",
            "Drop per window",
            "Probability of the target without occlusion minus with it, one value a window. "
            "Positive: the prediction stands on what is there. Negative: what is there speaks against it.",
        ),
        ResultSpec(
            "probability_map",
            "heatmap",
            "Probability per window",
            "Probability of the target while the window stands there.",
        ),
        ResultSpec(
            "predicted_class_map",
            "class_map",
            "Predicted class per window",
            "The most probable class while the window stands there.",
        ),
        ResultSpec(
            "top_classes",
            "table",
            "Most probable classes",
            "The five most probable classes of the picture without occlusion.",
        ),
    ),
    metrics=(
        MetricSpec(
            "base_probability",
            "Base probability",
            "Probability of the target without occlusion.",
            "probability",
        ),
        MetricSpec("max_drop", "Largest drop", "Largest value of drop_map.", "probability"),
        MetricSpec(
            "max_drop_y",
            "Largest drop: y",
            "Centre of the window with the largest drop, from the top of the model's input.",
            "px",
        ),
        MetricSpec(
            "max_drop_x",
            "Largest drop: x",
            "Centre of the window with the largest drop, from the left of the model's input.",
            "px",
        ),
        MetricSpec("windows", "Windows", "Number of window positions."),
        MetricSpec(
            "forward_equivalents",
            "Forward passes' worth",
            "Multiplications done in convolutions, in whole forward passes: `windows` for 'naive', fewer for 'exact'.",
        ),
        MetricSpec("seconds", "Seconds", "Time that the model took for this picture.", "s"),
    ),
    headline="pixel_map",
)
