"""occlusion: runs the model on every occluded copy of a picture and draws the maps from its answers."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from occluscope.analyses.contract import Outcome, Unit
from occluscope.analyses.occlusion.spec import OcclusionParameters
from occluscope.engine import naive
from occluscope.engine.covers import (
    Cover,
    blurred,
    constant_cover,
    gaussian_cover,
    mean_cover,
    picture_cover,
)
from occluscope.models.card import ModelCard
from occluscope.models.loading import LoadedModel
from occluscope.preparation import Frame, Picture
from occluscope.results import ClassMap, Column, GridGeometry, Heatmap, Metric, NamedResult, Table
from occluscope.windows import WindowGrid

_TOP: Final = 5  # rows of the table of most probable classes


def compute(
    model: LoadedModel,
    pictures: Sequence[Picture],
    params: OcclusionParameters,
    unit: Unit,
    report: Callable[[int], None],
) -> Outcome:
    """Occlusion maps of one picture: p = softmax(logits), drop = p₀ − p.

    pictures: exactly one. report: called after every batch with the number of windows done.
    """
    (picture,), (image,) = pictures, unit.images
    card = model.card
    grid = WindowGrid.over(card.input_size, params.window, params.stride)
    start = time.perf_counter()
    clear = model.tensor(picture.rgb)
    with torch.inference_mode():
        base = _probabilities(model.module(clear[None]))[0]
    target = int(base.argmax()) if params.target == "top1" else card.class_index(params.target)
    network = model.incremental if params.method == "exact" else None
    run = network.occluded if network else partial(naive.occluded_outputs, model.module)
    batches = run(clear, grid, _cover(model, picture, clear, params))
    probability, predicted = _follow(batches, grid, target, report)
    seconds = time.perf_counter() - start

    drop = float(base[target]) - probability
    largest = int(drop.argmax())
    y, x = grid.centre(largest)
    metrics = {
        "base_probability": (float(base[target]), "probability"),
        "max_drop": (float(drop.flat[largest]), "probability"),
        "max_drop_y": (y, "px"),
        "max_drop_x": (x, "px"),
        "windows": (float(len(grid)), None),
        "forward_equivalents": (len(grid) * (network.computed_share if network else 1.0), None),
        "seconds": (seconds, "s"),
    }
    results = {
        **_maps(card, grid, picture.frame, target, probability, drop),
        "predicted_class_map": _class_map(card, grid, picture.frame, predicted),
        "top_classes": _top_classes(card, base.cpu().numpy()),
    }
    return Outcome(
        [NamedResult(name, result, image) for name, result in results.items()],
        [Metric(name, value, unit, image) for name, (value, unit) in metrics.items()],
    )


def _probabilities(logits: Tensor) -> Tensor:
    """Softmax in float64, so that drops far below float32's step at 1 are still seen."""
    return logits.double().softmax(dim=1)


def _cover(model: LoadedModel, picture: Picture, clear: Tensor, params: OcclusionParameters) -> Cover:
    """What covers the windows, normalised as the picture is."""
    match params.baseline:
        case "window_mean":
            return mean_cover(clear, params.window)
        case "blur":
            return picture_cover(blurred(clear, params.baseline_sigma), params.window)
        case "noise":
            random = np.random.default_rng(params.baseline_seed)
            noise = random.integers(0, 256, picture.rgb.shape, dtype=np.uint8)
            return picture_cover(model.tensor(noise), params.window)
        case "gaussian":
            return gaussian_cover(clear, params.window)
        case _:
            return constant_cover(_colour(model, picture, params), params.window)


def _colour(model: LoadedModel, picture: Picture, params: OcclusionParameters) -> Tensor:
    """The one colour of the other baselines: float32 [3, 1, 1], normalised."""
    if params.baseline == "image_mean":
        return model.colour(picture.rgb.mean(axis=(0, 1)).tolist())
    if params.baseline == "value":
        return model.colour(params.baseline_value or (0, 0, 0))
    return torch.zeros(3, 1, 1, device=model.device)


def _follow(
    batches: Iterator[tuple[Tensor, Tensor]], grid: WindowGrid, target: int, report: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the target (float64) and most probable class (int32) a window, both [rows, columns]."""
    probability, predicted, done = np.empty(len(grid)), np.empty(len(grid), dtype=np.int32), 0
    for positions, logits in batches:
        probabilities = _probabilities(logits)
        probability[positions] = probabilities[:, target].cpu()
        predicted[positions] = probabilities.argmax(dim=1).cpu()
        done += len(positions)
        report(done)
    return probability.reshape(grid.shape), predicted.reshape(grid.shape)


def _maps(
    card: ModelCard, grid: WindowGrid, frame: Frame, target: int, probability: np.ndarray, drop: np.ndarray
) -> dict[str, Heatmap]:
    label = card.labels[target]
    windows = GridGeometry(grid, card.input_size, frame)
    pixels = GridGeometry.of_pixels(card.input_size, frame)
    per_pixel = grid.mean_per_pixel(drop, card.input_size)
    return {
        "pixel_map": _heatmap(per_pixel, pixels, f"mean drop of p({label})"),
        "drop_map": _heatmap(drop, windows, f"drop of p({label})"),
        "probability_map": _heatmap(probability, windows, f"p({label})"),
    }


def _heatmap(values: np.ndarray, geometry: GridGeometry, caption: str) -> Heatmap:
    return Heatmap(values.astype(np.float32), geometry, "probability", caption)


def _class_map(card: ModelCard, grid: WindowGrid, frame: Frame, predicted: np.ndarray) -> ClassMap:
    labels = {int(index): card.labels[index] for index in np.unique(predicted)}
    return ClassMap(predicted, labels, GridGeometry(grid, card.input_size, frame), "most probable class")


def _top_classes(card: ModelCard, base: np.ndarray) -> Table:
    columns = (
        Column("class", "integer"),
        Column("label", "text"),
        Column("probability", "number", "probability"),
    )
    rows = tuple((int(index), card.labels[index], float(base[index])) for index in base.argsort()[::-1][:_TOP])
    return Table(columns, rows, "most probable classes")
