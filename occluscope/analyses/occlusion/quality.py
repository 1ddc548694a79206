"""occlusion: measures of the quality of a map."""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from occluscope.analyses.occlusion.spec import CURVE_STEPS
from occluscope.engine.covers import blurred

_BATCH: Final = 8  # pictures of a curve in one batch
_DIGITS: Final = 9  # decimals of value ÷ largest value in which two pixels must differ to be ordered
_BLUR: Final = 10.0  # pixels; sigma of the blur that insertion starts from, too strong to recognise anything


def gini(pixel_map: np.ndarray) -> float:
    """Gini index of the absolute values: 0 if all are equal, 1 − 1/n if only one is not 0; 0 if all are 0.

    For n values in rising order Σ (2i − n − 1) vᵢ / (n Σ vᵢ), i from 1.
    """
    values = np.sort(np.abs(pixel_map[np.isfinite(pixel_map)]))
    total, count = values.sum(), len(values)
    if total == 0:
        return 0.0
    return float(((2 * np.arange(1, count + 1) - count - 1) * values).sum() / (count * total))


def pointing(pixel_map: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """The pointing metrics of a map. region: the object's pixels, bool [height, width].

    Pixels without a value are ignored. A metric that is not defined (no pixel inside or outside, no positive drop) is
    left out.
    """
    known = np.isfinite(pixel_map)
    inside, outside, drop = region & known, ~region & known, np.where(known, pixel_map, 0)
    found = {"pointing_hit": float(region.flat[int(np.where(known, pixel_map, -np.inf).argmax())])}
    positive = drop.clip(min=0)
    if positive.sum() > 0:
        found["energy_inside"] = float(positive[inside].sum() / positive.sum())
    if inside.any() and outside.any():
        found["drop_inside_minus_outside"] = float(drop[inside].mean() - drop[outside].mean())
    return found


def curve(
    score: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    pixel_map: np.ndarray,
    report: Callable[[int], None],
) -> np.ndarray:
    """The target's score while one picture is replaced by another pixel by pixel: float64 [CURVE_STEPS + 1].

    score: [batch, channels, height, width] → float64 [batch]. start, end: [channels, height, width].
    pixel_map: pixels are replaced by falling value; those without a value last.
    report: called with the number of passes done.
    """
    order = _most_important_first(pixel_map)
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    ranks = torch.from_numpy(rank.reshape(pixel_map.shape)).to(start.device)
    scores: list[Tensor] = []
    for steps in torch.split(torch.arange(CURVE_STEPS + 1), _BATCH):
        changed = ranks < (steps * order.size // CURVE_STEPS).to(start.device)[:, None, None]
        pictures = torch.where(changed[:, None], end, start).contiguous(memory_format=torch.channels_last)
        scores.append(score(pictures).cpu())
        report(int(steps[-1]) + 1)
    return torch.cat(scores).numpy()


def _most_important_first(pixel_map: np.ndarray) -> np.ndarray:
    """Pixels by falling value, those without a value last. Values that differ by rounding only go row by row."""
    known = np.where(np.isfinite(pixel_map), pixel_map, -np.inf)
    largest = np.abs(known[np.isfinite(known)]).max(initial=0) or 1.0
    return np.argsort(-np.round(known / largest, _DIGITS), axis=None, kind="stable")


def blurred_start(clear: Tensor) -> Tensor:
    """The blurred picture that insertion starts from."""
    return blurred(clear, _BLUR)


def area(scores: np.ndarray) -> float:
    """Area under a curve over the share of pixels, 0 … 1, by trapezoids."""
    return float((scores[1:] + scores[:-1]).sum() / 2 / (len(scores) - 1))
