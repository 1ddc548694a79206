"""occlusion: what can be set."""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SerializationInfo, WithJsonSchema, field_serializer

from occluscope.analyses.contract import Parameters
from occluscope.analyses.target_choice import MAX_TARGETS, OneTarget, Targets
from occluscope.windows import Box, Size

MAX_LENGTH: Final = 100_000  # pixels; far larger than any model's input, and small enough for safe arithmetic
MAX_SIZES: Final = 8


def _is_whole(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


def _tuples(given: Any) -> Any:
    """JSON's lists as tuples, which strict validation requires."""
    return tuple(_tuples(part) for part in given) if isinstance(given, list | tuple) else given


def _pair(given: Any) -> Any:
    """One number means a square."""
    return (given, given) if _is_whole(given) else _tuples(given)


def _triple(given: Any) -> Any:
    return (given, given, given) if _is_whole(given) else _tuples(given)


def _sizes(given: Any) -> Any:
    """One size or a list of them; [a, b] is one size, of height a and width b."""
    several = isinstance(given, list | tuple) and any(isinstance(part, list | tuple) for part in given)
    sizes = tuple(_pair(part) for part in given) if several else (_pair(given),)
    for size in sizes:
        if not isinstance(size, tuple) or len(size) != 2 or not all(_is_whole(length) for length in size):
            raise ValueError("a size is one whole number or [height, width]; several sizes are a list of those")
        if not all(1 <= length <= MAX_LENGTH for length in size):
            raise ValueError(f"every length must be greater than or equal to 1, and at most {MAX_LENGTH:,}")
    return sizes


def _region(given: Any) -> Any:
    box = _tuples(given)
    if not isinstance(box, str | None) and not (
        isinstance(box, tuple) and len(box) == 4 and all(_is_whole(edge) and 0 <= edge <= MAX_LENGTH for edge in box)
    ):
        raise ValueError("a region is a box [top, left, bottom, right] of whole numbers, or the id of a mask")
    return box


_Pixels = Annotated[int, Field(ge=1, le=MAX_LENGTH)]
_Edge = Annotated[int, Field(ge=0, le=MAX_LENGTH)]
_Level = Annotated[int, Field(ge=0, le=255)]


def _numbers(count: int, minimum: int, maximum: int) -> dict[str, Any]:
    number = {"type": "integer", "minimum": minimum, "maximum": maximum}
    return {"type": "array", "items": number, "minItems": count, "maxItems": count}


def _one_or(several: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [several, several["items"]]}


_SIZE_SCHEMA: Final = _one_or(_numbers(2, 1, MAX_LENGTH))
HeightWidth = Annotated[tuple[_Pixels, _Pixels], BeforeValidator(_pair), WithJsonSchema(_SIZE_SCHEMA)]
Sizes = Annotated[
    Annotated[tuple[tuple[_Pixels, _Pixels], ...], Field(min_length=1, max_length=MAX_SIZES)],
    BeforeValidator(_sizes),
    WithJsonSchema(
        {
            "anyOf": [
                *_SIZE_SCHEMA["anyOf"],
                {"type": "array", "items": _SIZE_SCHEMA, "minItems": 1, "maxItems": MAX_SIZES},
            ]
        }
    ),
]
Colour = Annotated[
    tuple[_Level, _Level, _Level], BeforeValidator(_triple), WithJsonSchema(_one_or(_numbers(3, 0, 255)))
]
_BOX_SCHEMA: Final = _numbers(4, 0, MAX_LENGTH)
BoxOfInput = Annotated[tuple[_Edge, _Edge, _Pixels, _Pixels], BeforeValidator(_tuples), WithJsonSchema(_BOX_SCHEMA)]


Region = Annotated[
    tuple[int, int, int, int] | str,
    BeforeValidator(_region),
    WithJsonSchema({"anyOf": [_BOX_SCHEMA, {"type": "string", "description": "id of a mask"}]}),
]


class OcclusionParameters(Parameters):
    """What can be set."""

    window: Sizes = Field(
        default=((32, 32),),
        title="Window",
        description="Size of the occluding window, [height, width] or one number for a square; pixels of the "
        f"model's input. Or a list of up to {MAX_SIZES} sizes such as [[16, 16], [48, 48]]: one set of maps each.",
        json_schema_extra={"default": [32, 32]},
    )
    stride: HeightWidth = Field(
        default=(16, 16),
        title="Stride",
        description="Steps between window positions, [down, across] or one number; pixels of the model's input.",
    )
    within: BoxOfInput | None = Field(
        default=None,
        title="Within",
        description="Box that the windows stay in, [top, left, bottom, right]; pixels of the model's input, the last "
        "two just outside. Without it: the whole input.",
    )
    target: Targets = Field(
        default="top1",
        title="Target",
        description="What is followed: 'top1' (the probability of the class that is most probable without "
        'occlusion), a class index, or a label; {"layer": …, "channel": …} follows a channel\'s activation '
        f"summed over space; or a list of up to {MAX_TARGETS} of these.",
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
    method: Literal["exact", "naive", "adaptive"] = Field(
        default="exact",
        title="Method",
        description="'exact' computes only what each window changes, and gives the numbers of 'naive', which runs "
        "one whole forward pass a window. 'adaptive' is approximate: it runs some of the windows, coarse to fine, "
        "interpolates the others, and says by how much it is off. Models that cannot be followed are "
        "run by whole passes; the number `followed` says so.",
    )
    tolerance: float = Field(
        default=0.08,
        gt=0,
        le=1,
        title="Tolerance",
        description="Of method 'adaptive': it ends when the estimated root mean square error of each map is at most "
        "this share of the map's range.",
    )
    margin: int = Field(
        default=64,
        ge=0,
        le=MAX_LENGTH,
        title="Margin",
        description="Of method 'adaptive': how far beyond the window its effect is followed; pixels of the model's "
        "input. The error this makes is measured on some windows.",
    )
    precision: Literal["full", "half"] = Field(
        default="full",
        title="Precision",
        description="'half' runs the model in 16 bits (float16 on a GPU, bfloat16 on a CPU) and measures the error "
        "of that on some windows.",
    )
    feature_layer: str | None = Field(
        default=None,
        title="Feature layer",
        description="A convolutional layer, by the name in the model's card: adds the feature-activity map of its "
        "channel that is most active without occlusion (Zeiler & Fergus, Fig 7b).",
    )
    region: Region | None = Field(
        default=None,
        title="Region",
        description="Where the object is: a box [top, left, bottom, right] in pixels of the model's input, or the "
        "id of an uploaded mask of the pictures' size, white where the object is. Adds the pointing metrics.",
    )
    insertion_deletion: bool = Field(
        default=True,
        title="Insertion and deletion",
        description="Whether to run the insertion and deletion curves of each map (66 whole passes).",
    )

    @field_serializer("window")
    def _plain_window(self, window: tuple[Size, ...], _info: SerializationInfo) -> Any:
        """A single size is written without a list around it."""
        return list(window[0]) if len(window) == 1 else [list(size) for size in window]

    @property
    def targets(self) -> tuple[OneTarget, ...]:
        """The targets, also if one alone is given."""
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @property
    def mask_image(self) -> str | None:
        """Id of the picture that masks the object."""
        return self.region if isinstance(self.region, str) else None

    def box(self, input_size: Size) -> Box:
        """Where the windows may stand."""
        return self.within or (0, 0, *input_size)
