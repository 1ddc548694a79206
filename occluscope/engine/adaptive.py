"""An approximate map from some of its windows: which windows to run next, interpolation of the others, and the error.

Windows are run from coarse to fine: first every fourth row and column, then those farthest from the windows run before,
earlier where the map is steep. The others are interpolated by a thin-plate spline (Duchon 1977) through those that were
run. The error is measured: each new window is predicted before it is run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import uniform_filter

from occluscope.engine.farthest import farthest

_CONTROLS: Final = 12  # windows that are run with and without the margin, to measure the margin's error
_COARSE: Final = 4  # every fourth row and column is run first
_BATCHES: Final = 13  # refinements in which the whole grid would be run; the error is measured after each
_SLOPES: Final = 5  # rows and columns over which steepness is averaged
_GLOBAL_SPLINE: Final = 1000  # windows; with more, only neighbours are used for each position
_NEIGHBOURS: Final = 24
_INTERPOLATED: Final = 4096  # windows between two calls of `tick`: a second at most


@dataclass(frozen=True)
class Approximation:
    """A map with some windows run and the others interpolated.

    values: float64 [positions, maps]. was_run: bool [positions].
    error: estimated root mean square error of each map, float64 [maps]; infinite before it can be estimated.
    """

    values: np.ndarray
    was_run: np.ndarray
    error: np.ndarray


def approximate(
    run: Callable[[np.ndarray, bool], np.ndarray],
    shape: tuple[int, int],
    tolerance: float,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Approximation]:
    """Run windows coarse to fine until every map's estimated error is at most `tolerance` of its range.

    run: called with positions of windows, int64 [windows], and whether to run them exactly; returns float64 [windows,
    maps]. shape: rows and columns of positions. tick: called about every second while no window is run; it may raise to
    end the work. Yields the map after each refinement; the last is the result.
    If the error of the margin alone is over half the tolerance, the windows after that are run exactly.
    """
    coarse = coarse_windows(shape)
    values = run(coarse, False)
    controls = np.unique(np.linspace(0, len(coarse) - 1, _CONTROLS).astype(int))
    exact_values = run(coarse[controls], True)
    cut = np.sqrt(np.mean((values[controls] - exact_values) ** 2, axis=0))
    values[controls] = exact_values
    refinement = Refinement(shape, values.shape[1], tick)
    refinement.add(coarse, values)
    while True:
        estimate = refinement.estimate()
        allowed = tolerance * np.ptp(estimate, axis=0)  # NaN if the map is not finite: no error is at most NaN
        error = np.hypot(refinement.error(), cut)
        yield Approximation(estimate, refinement.was_run.copy(), error)
        positions = refinement.next_windows()
        if not len(positions) or (error <= allowed).all():
            return
        refinement.add(positions, run(positions, bool((cut > allowed / 2).any())))


@dataclass
class Refinement:
    """Refines a map from coarse to fine.

    shape: rows and columns of window positions. tick: called regularly during long computations.
    values: float64 [positions, maps], NaN for windows that were not run. was_run: bool [positions].
    If a window's value is not finite, nothing can be interpolated, and all remaining windows are run next.
    """

    shape: tuple[int, int]
    maps: int
    tick: Callable[[], None] = lambda: None
    values: np.ndarray = field(init=False)
    was_run: np.ndarray = field(init=False)
    _surprises: list[np.ndarray] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.values = np.full((self.shape[0] * self.shape[1], self.maps), np.nan)
        self.was_run = np.zeros(len(self.values), dtype=bool)
        rows, columns = np.indices(self.shape)
        self._places = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(float)
        self._estimate: np.ndarray | None = None

    @property
    def finite(self) -> bool:
        """Whether the values of all windows that were run are finite."""
        return bool(np.isfinite(self.values[self.was_run]).all())

    def next_windows(self) -> np.ndarray:
        """The windows to run after the coarse ones: int64 [windows], empty if all were run."""
        done = self.was_run
        if done.all() or not self.finite:
            return np.flatnonzero(~done)
        count = min(max(len(done) // _BATCHES, 1), int((~done).sum()))
        weight = np.sqrt(self._steepness()) + np.finfo(float).eps
        return farthest(done.reshape(self.shape), weight.reshape(self.shape), count, self.tick)

    def add(self, positions: np.ndarray, values: np.ndarray) -> None:
        """Add the values of windows that were run. values: [windows, maps]."""
        if self.was_run.any() and self.finite:
            self._surprises.append(self.estimate()[positions] - values)
        self.values[positions] = values
        self.was_run[positions] = True
        self._estimate = None

    def estimate(self) -> np.ndarray:
        """The map, interpolated for windows that were not run: float64 [positions, maps]."""
        if self._estimate is None:
            done = self.was_run
            self._estimate = self.values.copy()
            left = np.flatnonzero(~done)
            if len(left) and self.finite:
                spline = RBFInterpolator(
                    self._places[done],
                    self.values[done],
                    kernel="thin_plate_spline",
                    neighbors=_NEIGHBOURS if done.sum() > _GLOBAL_SPLINE else None,
                    degree=_degree(self._places[done]),
                )
                for part in np.array_split(left, -(-len(left) // _INTERPOLATED)):
                    self._estimate[part] = spline(self._places[part])
                    self.tick()
        return self._estimate

    def error(self) -> np.ndarray:
        """Estimated root mean square error: float64 [maps]; infinite before the first refinement or if not finite.

        It comes from the errors of prediction of the windows in the two latest refinements, spread over the windows
        that were not run. Those windows were farther from earlier ones than the remaining windows are now, so the
        estimate tends to be too large.
        """
        left = float((~self.was_run).mean())
        if left == 0:
            return np.zeros(self.maps)
        if not self._surprises or not self.finite:
            return np.full(self.maps, np.inf)
        missed = np.concatenate(self._surprises[-2:])
        return np.asarray(np.sqrt(left * np.mean(missed**2, axis=0)))

    def _steepness(self) -> np.ndarray:
        """How fast the maps change around each window, 0 … 1 with 0.5 at the mean: float64 [positions]."""
        slopes = np.zeros(self.shape)
        for one in self.estimate().T.reshape(self.maps, *self.shape):
            gradients = [np.gradient(one, axis=axis) for axis in (0, 1) if self.shape[axis] > 1]
            squares = uniform_filter(sum(gradient**2 for gradient in gradients), _SLOPES)
            slope = np.sqrt(squares.clip(min=0))  # rounding of the filter's sums can be negative where the map is flat
            slopes += slope / (slope.mean() or 1.0)
        return np.asarray((slopes / (slopes + self.maps)).ravel())


def coarse_windows(shape: tuple[int, int]) -> np.ndarray:
    """The windows in every fourth row and column, and in the last ones: int64 [windows]."""
    rows, columns = (_coarse(length) for length in shape)
    return np.asarray((rows[:, None] * shape[1] + columns).ravel())


def _coarse(length: int) -> np.ndarray:
    """Every fourth position, and the last."""
    return np.unique(np.append(np.arange(0, length, _COARSE), length - 1))


def _degree(places: np.ndarray) -> int:
    """Degree of the spline's polynomial: a plane, or a constant if all windows are in one row or column."""
    return 1 if len(places) > 3 and np.ptp(places, axis=0).min() > 0 else 0
