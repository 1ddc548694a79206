"""correspondence: parameters, work units and names of results; no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from occluscope.analyses import layer_choice
from occluscope.analyses.contract import AnalysisSpec, Before, ImageRef, MetricSpec, Parameters, ResultSpec, Stage, Unit
from occluscope.analyses.layer_choice import Layers, layer_errors
from occluscope.errors import FieldError, InvalidInputError
from occluscope.models.card import ModelCard
from occluscope.pictures.preparation import Frame
from occluscope.windows import Box

MAX_PARTS: Final = 16
MAX_NAME: Final = 60  # characters
MAX_DRAWS: Final = 50
MAX_FEATURES: Final = 2**26  # of all layers and boxes of one picture; stored until the job has ended
MAX_COMPARED: Final = 2**30  # of all layers and one part's boxes, over all pictures; compared at the same time
MAX_BOXES: Final = 8192  # of one part over all pictures, with its random ones; all pairs are compared (512 MB)
_MAX_EDGE: Final = 100_000  # pixels

Parts = dict[str, tuple[int, int, int, int]]


def _parts(given: Any) -> Any:
    """JSON's lists as tuples; the error for anything that is not a box is written for the user."""
    if not isinstance(given, list | tuple):
        raise ValueError('parts is a list with one {"part": [top, left, bottom, right], …} for each picture')  # noqa: TRY004
    for number, boxes in enumerate(given):
        if not isinstance(boxes, dict) or not boxes:
            raise ValueError(f'picture {number}: give its parts as {{"part": [top, left, bottom, right], …}}')
        for name, box in boxes.items():
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
                raise ValueError(f"picture {number}: a part's name has 1 to {MAX_NAME} printable characters")
            whole = isinstance(box, list | tuple) and len(box) == 4 and all(type(edge) is int for edge in box)
            if not whole or not all(0 <= edge <= _MAX_EDGE for edge in box) or box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError(
                    f"picture {number}, part '{name}': a box is [top, left, bottom, right], whole pixels, "
                    "top above bottom, left before right"
                )
    return tuple({name: tuple(box) for name, box in boxes.items()} for boxes in given)


class CorrespondenceParameters(Parameters):
    """What can be set."""

    parts: Annotated[
        tuple[Parts, ...],
        BeforeValidator(_parts),
        WithJsonSchema(
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "minItems": 4,
                        "maxItems": 4,
                    },
                },
            }
        ),
    ] = Field(
        title="Parts",
        description='The named parts, one object for each picture in the job\'s order: [{"left eye": [top, left, '
        'bottom, right], "nose": […]}, …]; pixels of the original picture, upright, the last two just outside.',
    )
    layers: Layers = Field(
        default=(0.6, "last"), title="Layers", description=f"Where features are compared: {layer_choice.DESCRIPTION}"
    )
    random_draws: int = Field(
        default=5,
        ge=1,
        le=MAX_DRAWS,
        title="Random boxes",
        description="Random boxes a part and picture, of the part's own size, outside all parts where there is room.",
    )
    permutations: int = Field(
        default=1999,
        ge=99,
        le=100_000,
        title="Permutations",
        description="Of the test of part against random, and resamplings of the bootstrap.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, title="Seed", description="Of boxes, permutations and resamplings.")


def plan(
    params: CorrespondenceParameters, card: ModelCard, images: Sequence[ImageRef], _named: Mapping[str, ImageRef]
) -> list[Unit]:
    """One unit for each picture, with a step for the picture itself and one for each of its boxes.

    Raises
    ------
    InvalidInputError
        There are fewer than two pictures; parts are not given for each of them; a part lies outside the model's
        input or occurs in one picture only; the model has no such layer; or there are too many features or boxes.
    """
    of_part = 1 + params.random_draws
    errors = layer_errors(
        params.layers, card, MAX_FEATURES, times=of_part * max(map(len, params.parts), default=1)
    ) or layer_errors(params.layers, card, MAX_COMPARED, times=of_part * len(images))
    if of_part * len(images) > MAX_BOXES:
        message = (
            f"{len(images)} pictures with {of_part} boxes of a part each are {of_part * len(images):,} boxes that "
        )
        message += f"are compared with each other; the limit is {MAX_BOXES:,}: give fewer random_draws or pictures"
        errors.append(FieldError("params.random_draws", message))
    if len(images) < 2:
        errors.append(FieldError("images", "correspondence compares pictures: give at least two"))
    if len(params.parts) != len(images):
        message = f"there are {len(images)} pictures, and parts of {len(params.parts)}"
        raise InvalidInputError([*errors, FieldError("params.parts", message)])
    pictures_of = Counter(name for boxes in params.parts for name in boxes)
    if len(pictures_of) > MAX_PARTS:
        message = f"{len(pictures_of):,} different parts; the limit is {MAX_PARTS}"
        raise InvalidInputError([*errors, FieldError("params.parts", message)])
    errors += [
        FieldError("params.parts", f"part '{name}' is in one picture only; a pair takes two")
        for name, pictures in pictures_of.items()
        if pictures < 2
    ]
    units = []
    for number, (image, boxes) in enumerate(zip(images, params.parts, strict=True)):
        frame = card.preparation.frame(image.width, image.height)
        for name, box in boxes.items():
            if on_input(box, frame, card.input_size) is None:
                message = f"part '{name}' lies outside of what {card.name} sees of the picture"
                errors.append(FieldError(f"params.parts.{number}", message))
        payload = {"number": number, "parts": {name: list(box) for name, box in boxes.items()}}
        steps = 1 + len(boxes) * (1 + params.random_draws)
        units.append(Unit(images=(image.id,), steps=steps, payload=payload))
    if errors:
        raise InvalidInputError(errors)
    return units


def plan_pairs(
    _params: CorrespondenceParameters, _card: ModelCard, _images: Sequence[ImageRef], _before: Before
) -> list[Unit]:
    """One unit for all pictures."""
    return [Unit(images=(), steps=1)]


def part_names(params: CorrespondenceParameters) -> list[str]:
    """The names of all parts, in the order in which they first occur."""
    return list(dict.fromkeys(name for boxes in params.parts for name in boxes))


def on_input(box: Box, frame: Frame, input_size: tuple[int, int]) -> Box | None:
    """A box of the original picture in pixels of the model's input, at least one each way; None if it lies outside."""
    top, left, bottom, right = box
    height, width = input_size
    y = [(edge - frame.top) / (frame.bottom - frame.top) * height for edge in (top, bottom)]
    x = [(edge - frame.left) / (frame.right - frame.left) * width for edge in (left, right)]
    near = max(round(y[0]), 0), max(round(x[0]), 0)
    far = min(max(round(y[1]), near[0] + 1), height), min(max(round(x[1]), near[1] + 1), width)
    if y[1] <= 0 or x[1] <= 0 or near[0] >= far[0] or near[1] >= far[1]:
        return None
    return (*near, *far)


SPEC: Final = AnalysisSpec(
    name="correspondence",
    title="Correspondence",
    summary="Covers the same part in many pictures: where the features change in the same way, more alike than when "
    "random boxes are covered, the network knows which part is which.",
    parameters=CorrespondenceParameters,
    plan=plan,
    later=(Stage("pairs", plan_pairs),),
    results=(
        ResultSpec(
            "comparison",
            "curves",
            "Parts against random boxes",
            "Mean Hamming distance between the signs of feature changes, over all pairs of pictures, with its "
            "bootstrap 95 % interval. A part below random corresponds.",
        ),
        ResultSpec(
            "correspondence",
            "table",
            "Correspondence",
            "For each part and layer: Hamming distance of signs (mean and standard deviation over pairs, bootstrap "
            "interval), the same for random boxes of its size, the permutation test's p, and cosine distances.",
        ),
        ResultSpec(
            "boxes",
            "image",
            "Boxes",
            "What the model sees, with the parts (solid) and the random boxes (dashed).",
        ),
    ),
    metrics=(
        MetricSpec("delta", "Δ", "Mean Hamming distance of signs over pairs of pictures."),
        MetricSpec("delta_random", "Δ of random boxes", "The same for random boxes of the part's size."),
        MetricSpec(
            "p_value",
            "p",
            "Share of permutations (each picture's part exchanged at random with its random boxes) with as small a Δ.",
        ),
    ),
    order=2,
    headline="comparison",
)
