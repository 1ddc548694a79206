"""correspondence: how features change when a part is covered, and whether they change alike in all pictures."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from occluscope.analyses.contract import FIRST, Outcome, Part, Report, Unit, Work
from occluscope.analyses.correspondence.distances import Comparison, Tick, compare, cosine, hamming
from occluscope.analyses.correspondence.spec import CorrespondenceParameters, on_input, part_names
from occluscope.analyses.layer_choice import layer_names
from occluscope.engine.layers import layer_outputs
from occluscope.engine.memory import in_batches
from occluscope.models.loading import LoadedModel
from occluscope.pictures.preparation import Picture
from occluscope.results import Column, Curves, Metric, NamedResult, RgbImage, Series, Table, Variant
from occluscope.windows import Box, Size

_BATCH: Final = 8  # covered copies run at once
_ROUNDING: Final = 1e-6  # of the layer's largest value: smaller changes count as 0
_TRIES: Final = 200  # random places tried to find one outside all parts
_ZOOM: Final = 2
_COLOURS: Final = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf", "#7f7f7f",
)  # fmt: skip


def compute(
    model: LoadedModel, pictures: Sequence[Picture], params: CorrespondenceParameters, unit: Unit, report: Report
) -> Outcome:
    """Cover each part of one picture, and random boxes of the part's size, and keep how the features change.

    Kept for each layer and part: the change of features divided by its largest absolute value, float16 [1 + draws,
    features], with the part in the first row; and the signs of the change, int8, since a float16 may round to 0.
    """
    (picture,), card = pictures, model.card
    boxes = _boxes(params, unit, picture, card.input_size)
    layers = layer_names(params.layers, card)
    clear = model.tensor(picture.rgb)
    base = layer_outputs(model.module, clear[None], layers)
    report(1)
    kept: dict[str, np.ndarray] = {}
    done = 1
    for name, places in boxes.items():
        changes: dict[str, list[Tensor]] = {layer: [] for layer in layers}

        def run(part: slice, places: list[Box] = places) -> dict[str, Tensor]:
            copies = clear.expand(len(places[part]), -1, -1, -1).clone(memory_format=torch.channels_last)
            for copy, (top, left, bottom, right) in zip(copies, places[part], strict=True):
                copy[:, top:bottom, left:right] = 0  # the normalisation mean: Zeiler & Fergus's grey
            return layer_outputs(model.module, copies, layers)

        for part, features in in_batches(len(places), _BATCH, run):
            for layer in layers:
                changes[layer].append(base[layer].double() - features[layer].double())
            report(done + part.stop)
        done += len(places)
        for layer in layers:
            change = torch.cat(changes[layer]).flatten(1)
            change[change.abs() <= _ROUNDING * float(base[layer].abs().max())] = 0
            largest = change.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
            kept[f"{layer}/{name}/signs"] = change.sign().to(torch.int8).cpu().numpy()
            kept[f"{layer}/{name}/changes"] = (change / largest).half().cpu().numpy()
    drawn = RgbImage(_drawn(picture, boxes), "parts (solid) and random boxes (thin)")
    return Outcome([NamedResult("boxes", drawn, unit.images[0])], [], kept)


def pairs(work: Work, report: Report) -> Outcome:
    """Distances over all pairs of pictures, part by part and layer by layer."""
    params: CorrespondenceParameters = work.params
    card, parts = work.card, list(work.before[FIRST])
    rows: list[tuple[Any, ...]] = []
    metrics: list[Metric] = []
    found: dict[str, list[tuple[str, Comparison]]] = {}
    layers = layer_names(params.layers, card)

    def tick() -> None:
        report(0)  # ends a cancelled job, and shows the watchdog that the unit is alive

    for layer in layers:
        for name in part_names(params):
            having = [part for part in parts if name in part.unit.payload["parts"]]
            if len(having) < 2:
                continue
            by_signs, by_angle = (
                compare(
                    _distances(having, f"{layer}/{name}/{what}", measure, tick), params.permutations, params.seed, tick
                )
                for what, measure in (("signs", hamming), ("changes", cosine))
            )
            rows.append((name, layer, len(having), *_cells(by_signs), by_angle.mean, by_angle.random_mean, by_angle.p))
            found.setdefault(layer, []).append((name, by_signs))
            variant = Variant.of(layer=layer, part=name)
            metrics += [
                Metric("delta", by_signs.mean, None, None, variant),
                Metric("delta_random", by_signs.random_mean, None, None, variant),
                Metric("p_value", by_signs.p, None, None, variant),
            ]
    report(1)
    results = [
        NamedResult("comparison", _curves(layer, ones), None, Variant.of(layer=layer)) for layer, ones in found.items()
    ]
    results.append(NamedResult("correspondence", Table(_COLUMNS, tuple(rows), "correspondence of parts")))
    return Outcome(results, metrics)


_COLUMNS: Final = (
    Column("part", "text"), Column("layer", "text"), Column("pictures", "integer"), Column("delta", "number"),
    Column("std", "number"), Column("low", "number"), Column("high", "number"), Column("random", "number"),
    Column("random_std", "number"), Column("p", "number"), Column("cosine", "number"),
    Column("cosine_random", "number"), Column("cosine_p", "number"),
)  # fmt: skip


def _cells(one: Comparison) -> tuple[float, ...]:
    return one.mean, one.std, one.low, one.high, one.random_mean, one.random_std, one.p


def _distances(
    parts: list[Part], kept: str, measure: Callable[[np.ndarray, Tick], np.ndarray], tick: Tick
) -> np.ndarray:
    """Distances between all boxes of all pictures: [pictures, boxes, pictures, boxes]."""
    first = parts[0].kept[kept]
    pictures, boxes = len(parts), len(first)
    together = np.empty(
        (pictures, *first.shape), dtype=first.dtype
    )  # filled picture by picture, so that only one copy is in memory
    for number, part in enumerate(parts):
        together[number] = part.kept[kept]
        tick()
    return np.asarray(measure(together.reshape(pictures * boxes, -1), tick)).reshape(pictures, boxes, pictures, boxes)


def _curves(layer: str, ones: list[tuple[str, Comparison]]) -> Curves:
    parts = Series(
        "part (95 % interval)", np.array([one.mean for _, one in ones]), "Hamming distance of signs",
        np.array([one.low for _, one in ones]), np.array([one.high for _, one in ones]),
    )  # fmt: skip
    means, spread = (np.array([getattr(one, what) for _, one in ones]) for what in ("random_mean", "random_std"))
    random = Series(
        "random boxes of its size (± std)", means, "Hamming distance of signs", means - spread, means + spread
    )
    names = tuple(name for name, _ in ones)
    return Curves(np.arange(len(ones), dtype=float), "part", None, (parts, random), f"layer {layer}", names)


def _boxes(params: CorrespondenceParameters, unit: Unit, picture: Picture, input_size: Size) -> dict[str, list[Box]]:
    """The boxes of each part: its own first, then the random ones; pixels of the model's input."""
    parts = {name: on_input(tuple(box), picture.frame, input_size) for name, box in unit.payload["parts"].items()}
    own = {name: box for name, box in parts.items() if box is not None}
    random = np.random.default_rng([params.seed, unit.payload["number"]])
    return {
        name: [box, *(_random_box(random, box, list(own.values()), input_size) for _ in range(params.random_draws))]
        for name, box in own.items()
    }


def _random_box(random: np.random.Generator, like: Box, parts: list[Box], input_size: Size) -> Box:
    """A random box of the same size outside all parts; if none is found, the one that overlaps the parts least."""
    height, width = like[2] - like[0], like[3] - like[1]
    tops = random.integers(0, input_size[0] - height + 1, _TRIES)
    lefts = random.integers(0, input_size[1] - width + 1, _TRIES)
    overlaps = np.zeros(_TRIES)
    for top, left, bottom, right in parts:
        down = (np.minimum(tops + height, bottom) - np.maximum(tops, top)).clip(min=0)
        overlaps += down * (np.minimum(lefts + width, right) - np.maximum(lefts, left)).clip(min=0)
    best = int(overlaps.argmin())
    return int(tops[best]), int(lefts[best]), int(tops[best]) + height, int(lefts[best]) + width


def _drawn(picture: Picture, boxes: dict[str, list[Box]]) -> np.ndarray:
    """The input, enlarged, with its boxes: uint8 [height, width, 3]."""
    shown = Image.fromarray(picture.rgb)
    shown = shown.resize((shown.width * _ZOOM, shown.height * _ZOOM), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(shown)
    for number, (name, places) in enumerate(boxes.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        for place, (top, left, bottom, right) in enumerate(places):
            corners = [left * _ZOOM, top * _ZOOM, right * _ZOOM - 1, bottom * _ZOOM - 1]
            pen.rectangle(corners, outline=colour, width=1 if place else 3)
        top, left, _, _ = places[0]
        pen.text((left * _ZOOM + 4, top * _ZOOM + 3), name, fill=colour, stroke_width=2, stroke_fill="white")
    return np.asarray(shown)
