"""Places chosen one after the other, each the farthest from all before it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occluscope.engine.adaptive import Refinement, approximate, coarse_windows
from occluscope.engine.farthest import farthest
from tests.effort import examples


def by_comparing_all(done: np.ndarray, weight: np.ndarray, count: int) -> list[int]:
    """The definition, literally: for each choice the distance of every place to every other."""
    places = np.argwhere(np.ones(done.shape))
    before = [place for place in places if done[tuple(place)]]
    chosen = []
    for _ in range(count):
        distances = [min(np.hypot(*(place - one)) for one in before) * weight[tuple(place)] for place in places]
        chosen.append(int(np.argmax(distances)))
        before.append(places[chosen[-1]])
    return chosen


@settings(max_examples=examples(30, 600), deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0.02, 0.6),
    levels=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_it_chooses_what_comparing_all_places_chooses(
    shape: tuple[int, int], share: float, levels: int, seed: int
) -> None:
    """Few levels of weight make many places equally far, where the first of them is to be taken."""
    random = np.random.default_rng(seed)
    done = random.uniform(size=shape) < share
    done.flat[random.integers(done.size)] = True
    weight = random.integers(1, levels + 1, shape) / levels
    count = int((~done).sum())
    assert farthest(done, weight, count).tolist() == by_comparing_all(done, weight, count)


def test_it_ticks_all_along_and_ends_when_told_to() -> None:
    shape = (160, 200)
    done = np.zeros(shape, dtype=bool)
    done.flat[coarse_windows(shape)] = True
    ticks: list[int] = []

    class Enough(Exception):  # noqa: N818 - no error
        pass

    def tick() -> None:
        ticks.append(len(ticks))
        if len(ticks) == 12:
            raise Enough

    farthest(done, np.ones(shape), 4096, lambda: ticks.append(0))
    assert len(ticks) >= 4
    ticks.clear()
    with pytest.raises(Enough):
        farthest(done, np.ones(shape), 25_000, tick)


def test_between_two_runs_of_windows_an_approximation_ticks_many_times() -> None:
    shape = (160, 200)
    y, x = np.indices(shape)
    truth = (np.sin(y / 9) * np.cos(x / 7)).reshape(-1, 1)
    happened: list[str] = []

    def run(positions: np.ndarray, _exact: bool) -> np.ndarray:
        happened.append("run")
        return np.asarray(truth[positions])

    steps = approximate(run, shape, 0.0, lambda: happened.append("tick"))
    for _ in range(3):
        next(steps)
    between = "".join("." if what == "tick" else " " for what in happened).strip().split()
    assert len(between) >= 2
    assert min(map(len, between[:2])) >= 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_window_without_a_finite_number_has_all_windows_run_once(bad: float) -> None:
    shape = (12, 15)
    truth = np.linspace(0, 1, 180).reshape(-1, 1)
    truth[77] = bad
    runs = np.zeros(180, dtype=int)

    def run(positions: np.ndarray, exact: bool) -> np.ndarray:
        runs[positions] += not exact
        return np.asarray(truth[positions])

    *_, last = approximate(run, shape, 0.0)
    assert last.was_run.all()
    assert runs.max() == 1
    np.testing.assert_array_equal(last.values, truth)
    assert last.error.tolist() == [0.0]


def test_a_refinement_asks_for_no_window_twice() -> None:
    refinement = Refinement((9, 14), 1)
    coarse = coarse_windows((9, 14))
    refinement.add(coarse, np.zeros((len(coarse), 1)))
    asked = [coarse]
    while len(positions := refinement.next_windows()):
        refinement.add(positions, np.zeros((len(positions), 1)))
        asked.append(positions)
    assert sorted(np.concatenate(asked).tolist()) == list(range(9 * 14))
