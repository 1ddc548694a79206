"""invariance: numbers computed from curves and activations; uses numpy only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

_ORDERS: Final = range(2, 9)  # orders of rotational symmetry that are tried
_REPEATS: Final = 0.8  # least share of a curve's variance for it to be called symmetric
_FLAT: Final = 1e-12  # variance below which a curve counts as constant
_GLOBAL_FIRING: Final = 0.01  # Goodfellow et al. 2009: share of pictures on which a unit fires
_NOTHING: Final = 1e-9  # of the largest activation: a unit with a smaller deviation counts as constant


def area(strengths: np.ndarray, values: np.ndarray) -> float:
    """Mean height of a curve: its area (trapezia) ÷ the length of its axis."""
    return float(np.trapezoid(values, strengths) / (strengths[-1] - strengths[0]))


def tolerance(strengths: np.ndarray, probability: np.ndarray, identity: int) -> tuple[float | None, float | None]:
    """The farthest strengths below and above the identity up to which p ≥ p₀ / 2 on an unbroken run.

    identity: its position among the strengths. None if the range has no strengths on that side.
    """
    holds = probability >= probability[identity] / 2
    below = None if identity == 0 else float(strengths[identity - _run(holds[:identity][::-1])])
    above = None if identity == len(strengths) - 1 else float(strengths[identity + _run(holds[identity + 1 :])])
    return below, above


def _run(holds: np.ndarray) -> int:
    """How many are true before the first that is false."""
    return int(holds.argmin()) if not holds.all() else len(holds)


@dataclass(frozen=True)
class Symmetry:
    """order: of the rotational symmetry, 1 for none. strength: share of the curve's variance that repeats with it.

    Of order 1 the strength is that of the best order from 2 on.
    """

    order: int
    strength: float


def rotational_symmetry(curve: np.ndarray) -> Symmetry:
    """The order of a curve over evenly spaced angles once round.

    A curve of order k repeats after 1/k of a turn: it consists of the harmonics k, 2k, 3k, …. The order is the largest
    from 2 to 8 whose harmonics have at least 0.8 of the curve's variance. (A curve of order 4 is also one of order 2.)
    """
    power = np.abs(np.fft.rfft(curve - curve.mean())) ** 2
    power[1 : (len(curve) + 1) // 2] *= 2  # all but the middle one occur twice in the whole spectrum
    total = power[1:].sum()
    if total / len(curve) ** 2 <= _FLAT:
        return Symmetry(1, 0.0)
    shares = {order: float(power[order::order].sum() / total) for order in _ORDERS if order < len(power)}
    repeating = [order for order, share in shares.items() if share >= _REPEATS]
    order = max(repeating, default=1)
    return Symmetry(order, shares[order] if repeating else max(shares.values()))


def normalised_variance(activations: np.ndarray, largest: float | None = None) -> np.ndarray:
    """How far each unit varies over transformations, ÷ over pictures: [pictures, strengths, units] → [units].

    The mean over pictures of the standard deviation over strengths, ÷ the mean over strengths of the standard deviation
    over pictures, as in ``tmeasures`` (Quiroga et al. 2019); NaN for a unit that does not vary over pictures.
    largest: the layer's largest activation, needed if only some of its units are given.
    """
    values = activations.astype(np.float64)
    over_strengths = values.std(axis=1, ddof=1).mean(axis=0)
    over_pictures = values.std(axis=0, ddof=1).mean(axis=0)
    largest = float(np.abs(values).max()) if largest is None else largest
    varies = over_pictures > _NOTHING * max(largest, np.finfo(float).tiny)
    return np.asarray(np.divide(over_strengths, over_pictures, out=np.full(len(varies), np.nan), where=varies))


def local_firing(activations: np.ndarray, identity: int) -> np.ndarray:
    """Share of transformed copies on which each unit fires, of the pictures on which it does: float64 [units].

    Goodfellow et al. 2009, L(i). activations: [pictures, strengths, units]. A unit fires above the threshold that 1 %
    of the unchanged pictures (at least one) exceed. Of both signs of the activation, the one with the higher invariance
    is used. NaN for a unit that has the same activation on all pictures.
    """
    pictures = len(activations)
    firing = max(round(_GLOBAL_FIRING * pictures), 1)
    found = []
    for sign in (1, -1):
        values = sign * activations.astype(np.float64)
        unchanged = values[:, identity]
        ranked = np.sort(unchanged, axis=0)[::-1]
        threshold = (ranked[firing - 1] + ranked[firing]) / 2
        fires = values > threshold
        chosen = unchanged > threshold  # [pictures, units]
        share = fires.mean(axis=1)
        tells = chosen.sum(axis=0)
        total = np.where(chosen, share, 0).sum(axis=0)
        found.append(np.divide(total, tells, out=np.full(len(tells), np.nan), where=tells > 0))
    return np.asarray(np.fmax(*found))


def mean_distance(features: Sequence[np.ndarray], tick: Callable[[], None] = lambda: None) -> float:
    """Mean Euclidean distance between different pictures' features, over all pairs; features: [features] each.

    tick: called for each picture; it may raise to end the work.
    """
    distances: list[float] = []
    for number, one in enumerate(features):
        distances += [float(np.linalg.norm(one - other)) for other in features[:number]]
        tick()
    return float(np.mean(distances))
