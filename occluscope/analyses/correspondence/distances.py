"""correspondence: distances between changes of features, and their statistics; uses numpy only.

Zeiler & Fergus 2013, section 4.2: with the change ε_i = x_i − x̃_i of picture i, Δ = Σ_{i≠j} H(sign ε_i, sign ε_j),
H the Hamming distance. Here Δ is the mean over unordered pairs, H the share of features whose signs differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

_CHUNK: Final = 2**14  # features compared at a time, so that memory stays small
_RESAMPLED: Final = 64  # permutations or resamplings between two calls of `tick`

Tick = Callable[[], None]


def _silent() -> None:
    pass


def hamming(signs: np.ndarray, tick: Tick = _silent) -> np.ndarray:
    """Share of features whose signs differ, for all pairs: int8 [boxes, features] → float64 [boxes, boxes].

    tick: called regularly; it may raise to end the work.
    """
    products, both = np.zeros((2, len(signs), len(signs)))
    for start in range(0, signs.shape[1], _CHUNK):  # whole numbers far below 2²⁴: exact in float32
        part = signs[:, start : start + _CHUNK].astype(np.float32)
        products += part @ part.T
        part = np.abs(part)
        both += part @ part.T
        tick()
    changed = np.diag(both)
    neither = signs.shape[1] - changed[:, None] - changed + both
    return np.asarray(1 - (neither + (products + both) / 2) / signs.shape[1])


def cosine(changes: np.ndarray, tick: Tick = _silent) -> np.ndarray:
    """1 − cosine of the angle, for all pairs: [boxes, features] → float64 [boxes, boxes]; 1 if either is zero."""
    products = np.zeros((len(changes), len(changes)))
    for start in range(0, changes.shape[1], _CHUNK):
        part = changes[:, start : start + _CHUNK].astype(np.float32)
        products += part @ part.T
        tick()
    lengths = np.sqrt(np.diag(products))
    norms = np.outer(lengths, lengths)
    return np.asarray(1 - np.divide(products, norms, out=np.zeros_like(products), where=norms > 0))


@dataclass(frozen=True)
class Comparison:
    """One part at one layer.

    mean, std: of the distance over unordered pairs of pictures; low, high: bootstrap 95 % interval of the mean.
    random_mean, random_std: over pairs and draws of random boxes. p: of the permutation test, one-sided.
    """

    mean: float
    std: float
    low: float
    high: float
    random_mean: float
    random_std: float
    p: float


def compare(distances: np.ndarray, permutations: int, seed: int, tick: Tick = _silent) -> Comparison:
    """Compare a part with random boxes.

    distances: [pictures, boxes, pictures, boxes]; a picture's first box is the part, the others its random boxes.
    The permutation test exchanges each picture's part with one of the picture's boxes at random. Under the null
    hypothesis the part is a box like any other. p = (1 + permutations with a mean as small) ÷ (1 + permutations).
    The interval resamples pictures with replacement; pairs of a picture with itself are left out.
    """
    pictures, boxes = distances.shape[:2]
    first, second = np.triu_indices(pictures, 1)
    own = distances[:, 0, :, 0]
    pairs = own[first, second]
    draws = np.concatenate([distances[first, draw, second, draw] for draw in range(1, boxes)])
    random = np.random.default_rng(seed)
    picks = random.integers(0, boxes, (permutations, pictures))
    permuted = np.empty(permutations)
    for number, pick in enumerate(picks):
        permuted[number] = distances[first, pick[first], second, pick[second]].mean()
        if number % _RESAMPLED == 0:
            tick()
    low, high = np.nanpercentile(_bootstrap(own, permutations, random, tick), (2.5, 97.5))
    return Comparison(
        mean=float(pairs.mean()),
        std=float(pairs.std()),
        low=float(low),
        high=float(high),
        random_mean=float(draws.mean()),
        random_std=float(draws.std()),
        p=float((1 + (permuted <= pairs.mean() + 1e-12).sum()) / (1 + permutations)),
    )


def _bootstrap(own: np.ndarray, resamplings: int, random: np.random.Generator, tick: Tick) -> np.ndarray:
    """Mean distance over pairs of different pictures, for each resampling; NaN if it holds one picture only."""
    pictures = len(own)
    means = np.full(resamplings, np.nan)
    for number, counts in enumerate(random.multinomial(pictures, np.full(pictures, 1 / pictures), resamplings)):
        weights = np.outer(counts, counts).astype(float)
        np.fill_diagonal(weights, 0)
        if weights.sum():
            means[number] = (weights * own).sum() / weights.sum()
        if number % _RESAMPLED == 0:
            tick()
    return means
