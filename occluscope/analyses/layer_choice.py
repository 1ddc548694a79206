"""Layers as requests name them: by name, by ``first`` or ``last``, or by depth. Shared by all analyses of features."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from occluscope.errors import FieldError
from occluscope.models.card import ModelCard

MAX_LAYERS: Final = 32
_NO_LAYERS: Final = ("ZeroPad2d", "ConstantPad2d", "Identity", "Dropout", "Dropout2d")  # not counted as depth
_ENDS: Final = {"first": 0.0, "last": 1.0}

DESCRIPTION: Final = (
    "names from the model's card, 'first', 'last', or a depth from 0 to 1 among the layers that give maps or tokens."
)


def _as_tuple(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


def _known_depths(layers: tuple[str | float, ...]) -> tuple[str | float, ...]:
    for layer in layers:
        if isinstance(layer, float | int) and not 0 <= layer <= 1:
            raise ValueError(f"a depth is from 0 (first) to 1 (last), and {layer} is not")
    return layers


_Published = Annotated[list[str | Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=MAX_LAYERS)]
Layers = Annotated[
    tuple[str | float | int, ...],
    AfterValidator(_known_depths),
    Field(
        min_length=1, max_length=MAX_LAYERS
    ),  # counted after the entries are valid, so that a wrong entry gives one error only
    BeforeValidator(_as_tuple, json_schema_input_type=_Published),
]


def layer_names(layers: Layers, card: ModelCard) -> list[str]:
    """The layers' names in the card.

    Raises
    ------
    LookupError
        The model has no such layer.
    """
    order = [layer for layer in card.placed_layers() or card.layers if layer.type not in _NO_LAYERS]
    found = []
    for wanted in layers:
        if isinstance(wanted, str) and wanted not in _ENDS:
            found.append(card.layer(wanted).name)
        else:
            depth = _ENDS[wanted] if isinstance(wanted, str) else float(wanted)
            found.append(order[round(depth * (len(order) - 1))].name)
    return list(dict.fromkeys(found))


def layer_errors(layers: Layers, card: ModelCard, max_features: int, times: int = 1) -> list[FieldError]:
    """The errors of ``params.layers``.

    max_features: of all layers together, each taken `times` times, for one picture.
    """
    try:
        names = layer_names(layers, card)
    except LookupError as error:
        return [FieldError("params.layers", str(error.args[0]))]
    features = sum(card.layer(name).features for name in names)
    if features * times <= max_features:
        return []
    of = f" for each of {times} boxes" if times > 1 else ""
    message = f"{', '.join(names)} have {features:,} features{of}; the limit is {max_features // times:,} in all"
    return [FieldError("params.layers", message)]
