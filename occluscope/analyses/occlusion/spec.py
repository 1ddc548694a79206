"""occlusion: work units and names of results; no torch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from occluscope.analyses.contract import FIRST, AnalysisSpec, Before, ImageRef, MetricSpec, ResultSpec, Stage, Unit
from occluscope.analyses.occlusion.parameters import OcclusionParameters
from occluscope.analyses.target_choice import head_of, target_errors
from occluscope.errors import FieldError, InvalidInputError
from occluscope.models.card import ModelCard
from occluscope.windows import Box, Size, count_positions

MAX_WINDOWS: Final = 100_000  # positions over one picture, all sizes of window together
SPLIT_WINDOWS: Final = 6_000  # positions over one picture above which it is split
PART_WINDOWS: Final = 3_000  # positions of one unit of a split picture, about
CURVE_STEPS: Final = 32  # steps of the insertion and the deletion curve


def plan(
    params: OcclusionParameters, card: ModelCard, images: Sequence[ImageRef], named: Mapping[str, ImageRef]
) -> list[Unit]:
    """One unit for each picture, with a step for each window and each forward pass of insertion and deletion curves.

    A picture with very many windows is split by rows, so that several workers share it. Later stages then run its
    curves and make its maps.

    Raises
    ------
    InvalidInputError
        A window is larger than the input or the box `within`; there would be more than `MAX_WINDOWS` positions; a box
        lies outside the input; the model has no such target or layer; the mask's size is not the pictures'; or
        baseline and baseline_value do not fit together.
    """
    misplaced = list(_box_errors("within", params.within, card))
    errors = [
        *(misplaced or _window_errors(params, card)),
        *_box_errors("region", params.region if isinstance(params.region, tuple) else None, card),
        *_baseline_errors(params),
        *target_errors(params.target, card),
        *_feature_errors(params, card),
        *_mask_errors(params, images, named),
    ]
    if errors:
        raise InvalidInputError(errors)
    windows = sum(_windows(params, size, card) for size in params.window)
    passes = 2 * (CURVE_STEPS + 1) if params.insertion_deletion else 0
    masks = (params.mask_image,) if params.mask_image else ()
    count = _parts(params, card, windows)
    if count == 1:
        steps = windows + passes * len(params.window) * curve_targets(params, card)
        return [Unit(images=(image.id, *masks), steps=steps) for image in images]
    shares = [Share(number, count) for number in range(count)]
    steps_of = [sum(_windows_of_share(params, size, card, share) for size in params.window) for share in shares]
    return [
        Unit((image.id, *masks), steps, {"share": [share.number, share.count]})
        for image in images
        for share, steps in zip(shares, steps_of, strict=True)
    ]


@dataclass(frozen=True)
class Share:
    """One of `count` equal shares of every grid's rows."""

    number: int
    count: int

    @classmethod
    def of(cls, unit: Unit) -> "Share | None":
        """The unit's share; None if the unit runs all windows of its picture."""
        return cls(*unit.payload["share"]) if "share" in unit.payload else None

    def rows(self, rows: int) -> range:
        """The rows of this share. rows: of the whole grid."""
        return range(self.number * rows // self.count, (self.number + 1) * rows // self.count)


def plan_curves(
    params: OcclusionParameters, card: ModelCard, _images: Sequence[ImageRef], before: Before
) -> list[Unit]:
    """For pictures that were split: a unit for each map that has curves, with a step for each forward pass."""
    targets = [place for place, target in enumerate(params.targets) if head_of(target, card).is_bounded]
    if not params.insertion_deletion or not targets:
        return []
    return [
        Unit((images[0],), 2 * (CURVE_STEPS + 1), {"shares": shares, "window": window, "target": target})
        for images, shares in _split_pictures(before)
        for window in range(len(params.window))
        for target in targets
    ]


def plan_maps(
    _params: OcclusionParameters, _card: ModelCard, _images: Sequence[ImageRef], before: Before
) -> list[Unit]:
    """For pictures that were split: one unit each, which makes the maps from the shares."""
    curves: dict[str, list[int]] = {}
    for place, part in enumerate(before.get("curves", ())):
        curves.setdefault(part.unit.images[0], []).append(place)
    return [
        Unit(images, 1, {"shares": shares, "curves": curves.get(images[0], [])})
        for images, shares in _split_pictures(before)
    ]


def _split_pictures(before: Before) -> list[tuple[tuple[str, ...], list[int]]]:
    """Pictures all of whose shares succeeded: their images (with the mask), and the positions of their parts."""
    shares: dict[tuple[str, ...], list[int]] = {}
    counts: dict[tuple[str, ...], int] = {}
    for place, part in enumerate(before[FIRST]):
        if share := Share.of(part.unit):
            shares.setdefault(part.unit.images, []).append(place)
            counts[part.unit.images] = share.count
    return [(images, places) for images, places in shares.items() if len(places) == counts[images]]


def curve_targets(params: OcclusionParameters, card: ModelCard) -> int:
    """How many targets have insertion and deletion curves: those whose scores have a finite range."""
    return sum(head_of(target, card).is_bounded for target in params.targets)


def _windows(params: OcclusionParameters, size: Size, card: ModelCard) -> int:
    rows, columns = _positions(params, size, card)
    return rows * columns


def _positions(params: OcclusionParameters, size: Size, card: ModelCard) -> tuple[int, int]:
    """Rows and columns of positions."""
    rows, columns = (
        count_positions(far - near, window, stride) for near, far, window, stride in _axes(params, size, card)
    )
    return rows, columns


def _windows_of_share(params: OcclusionParameters, size: Size, card: ModelCard, share: Share) -> int:
    rows, columns = _positions(params, size, card)
    return len(share.rows(rows)) * columns


def _parts(params: OcclusionParameters, card: ModelCard, windows: int) -> int:
    """Into how many units a picture is split. An approximate map is not: each window to run depends on those before."""
    if windows <= SPLIT_WINDOWS or params.method == "adaptive":
        return 1
    fewest_rows = min(_positions(params, size, card)[0] for size in params.window)
    return min(math.ceil(windows / PART_WINDOWS), fewest_rows)


def _axes(params: OcclusionParameters, size: Size, card: ModelCard) -> Iterator[tuple[int, int, int, int]]:
    """For each axis: near and far edge of the area for windows, the window's length, the stride."""
    box = params.box(card.input_size)
    return zip(box[:2], box[2:], size, params.stride, strict=True)


def _window_errors(params: OcclusionParameters, card: ModelCard) -> Iterator[FieldError]:
    place = "the box 'within'" if params.within else f"the input of {card.name}"
    for size in params.window:
        axes = list(_axes(params, size, card))
        if any(window > far - near for near, far, window, _ in axes):
            height, width = (far - near for near, far, _, _ in axes)
            shown = f"{size[0]} × {size[1]}"
            yield FieldError("params.window", f"the window ({shown}) is larger than {place} ({height} × {width})")
            return
    windows = sum(_windows(params, size, card) for size in params.window)
    if windows > MAX_WINDOWS:
        yield FieldError("params.stride", f"this stride gives {windows:,} windows; the limit is {MAX_WINDOWS:,}")


def _box_errors(name: str, box: Box | None, card: ModelCard) -> Iterator[FieldError]:
    if box is None:
        return
    top, left, bottom, right = box
    height, width = card.input_size
    if not (top < bottom <= height and left < right <= width):
        inside = f"must lie in the input of {card.name} ({height} × {width})"
        yield FieldError(f"params.{name}", f"[top, left, bottom, right] {inside}, top above bottom, left before right")


def _baseline_errors(params: OcclusionParameters) -> Iterator[FieldError]:
    if params.baseline == "value" and params.baseline_value is None:
        yield FieldError("params.baseline_value", "baseline 'value' needs a colour, such as [0, 0, 0]")
    if params.baseline != "value" and params.baseline_value is not None:
        message = f"goes with baseline 'value' only, and baseline is '{params.baseline}'"
        yield FieldError("params.baseline_value", message)


def _feature_errors(params: OcclusionParameters, card: ModelCard) -> Iterator[FieldError]:
    if params.feature_layer is not None:
        try:
            card.map_channels(params.feature_layer)
        except LookupError as error:
            yield FieldError("params.feature_layer", str(error.args[0]))


def _mask_errors(
    params: OcclusionParameters, images: Sequence[ImageRef], named: Mapping[str, ImageRef]
) -> Iterator[FieldError]:
    if params.mask_image is None:
        return
    mask = named[params.mask_image]
    for position, image in enumerate(images):
        if (image.width, image.height) != (mask.width, mask.height):
            sizes = f"{mask.width} × {mask.height} pixels, and picture {position} {image.width} × {image.height}"
            yield FieldError("params.region", f"the mask is {sizes}")
            return


SPEC: Final = AnalysisSpec(
    name="occlusion",
    title="Occlusion sensitivity",
    summary="Slides a covered window over the picture and records how the prediction changes: "
    "where it falls, the prediction stands on what was covered.",
    parameters=OcclusionParameters,
    plan=plan,
    later=(Stage("curves", plan_curves), Stage("maps", plan_maps)),
    named_images=lambda params: {"region": params.mask_image} if params.mask_image else {},
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
            "What the target has without occlusion minus what it has with it, one value a window. "
            "Positive: the prediction stands on what is there. Negative: what is there speaks against it.",
        ),
        ResultSpec(
            "probability_map",
            "heatmap",
            "Target per window",
            "Probability of the target class (or activation of the target channel) while the window stands there.",
        ),
        ResultSpec(
            "predicted_class_map",
            "class_map",
            "Predicted class per window",
            "The most probable class while the window stands there (Zeiler & Fergus, Fig 7e). With method 'adaptive' "
            "a window that was not run takes the class of the nearest that was.",
        ),
        ResultSpec(
            "feature_activity_map",
            "heatmap",
            "Feature activity per window",
            "Summed activity of the feature layer's most active map while the window stands there (Zeiler & Fergus, "
            "Fig 7b): where it falls, the feature stands on what was covered.",
        ),
        ResultSpec(
            "insertion_deletion",
            "curves",
            "Insertion and deletion",
            "Probability of the target while the pixels of the drop map are removed (to grey) or brought in (into "
            "the blurred picture), the most important first (Petsiuk et al. 2018). A good map falls fast on deletion "
            "and rises fast on insertion.",
        ),
        ResultSpec(
            "top_classes",
            "table",
            "Most probable classes",
            "The five most probable classes of the picture without occlusion.",
        ),
    ),
    metrics=(
        MetricSpec("base_probability", "Base probability", "Probability of the target without occlusion."),
        MetricSpec("max_drop", "Largest drop", "Largest value of drop_map."),
        MetricSpec(
            "max_drop_y",
            "Largest drop: y in the input",
            "Centre of the window with the largest drop, from the top of the model's input.",
            "px",
        ),
        MetricSpec(
            "max_drop_x",
            "Largest drop: x in the input",
            "Centre of the window with the largest drop, from the left of the model's input.",
            "px",
        ),
        MetricSpec(
            "gini",
            "Gini index",
            "Of the absolute values of pixel_map: 0 when all pixels matter alike, towards 1 when few do.",
        ),
        MetricSpec(
            "deletion_auc",
            "Deletion: area",
            "Area under the deletion curve, by trapezoids; lower is better (Petsiuk et al. 2018).",
            "probability",
        ),
        MetricSpec(
            "insertion_auc",
            "Insertion: area",
            "Area under the insertion curve, by trapezoids; higher is better.",
            "probability",
        ),
        MetricSpec(
            "pointing_hit", "Pointing hit", "1 where the largest value of pixel_map lies in the region, else 0."
        ),
        MetricSpec(
            "energy_inside",
            "Energy inside",
            "Share of pixel_map's positive drop that lies in the region (Wang et al. 2020).",
        ),
        MetricSpec(
            "drop_inside_minus_outside",
            "Drop inside − outside",
            "Mean drop of the region's pixels minus that of the others.",
        ),
        MetricSpec("windows", "Windows", "Number of window positions."),
        MetricSpec(
            "windows_run", "Windows run", "How many of them method 'adaptive' ran; the others are interpolated."
        ),
        MetricSpec(
            "estimated_error",
            "Estimated error",
            "Of method 'adaptive': the map's root mean square error, as measured on windows predicted before they "
            "were run and on windows run with and without the margin.",
        ),
        MetricSpec(
            "precision_error",
            "Half precision: error",
            "Largest difference between half and full precision over the windows it was measured on.",
        ),
        MetricSpec(
            "forward_equivalents",
            "Forward passes' worth",
            "Multiplications done, in whole forward passes: `windows` for 'naive', fewer for 'exact'.",
        ),
        MetricSpec(
            "followed",
            "Followed",
            "1 where only what each window changes was computed, held against whole forward passes; 0 where whole "
            "passes were run: by method 'naive', or because the model cannot be followed (the worker's log says why).",
        ),
        MetricSpec("seconds", "Seconds", "Time that the windows took for this picture.", "s"),
    ),
    order=1,
    headline="pixel_map",
)
