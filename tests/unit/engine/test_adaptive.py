"""The approximate map: what it runs, how close it comes, and whether it knows how far off it is."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from occluscope.engine.adaptive import Approximation, Refinement, approximate, coarse_windows
from occluscope.engine.covers import constant_cover
from occluscope.engine.incremental import IncrementalNetwork
from occluscope.engine.ordering import in_order
from occluscope.models.loading import LoadedModel
from occluscope.windows import WindowGrid

pytestmark = pytest.mark.slow


def smooth_map(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A few random waves: float64 [positions, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    waves = [np.sin(y * random.uniform(0, 1) + x * random.uniform(0, 1) + random.uniform(0, 6)) for _ in range(4)]
    return np.asarray(sum(waves)).reshape(-1, 1)


def last_of(truth: np.ndarray, shape: tuple[int, int], tolerance: float) -> tuple[Approximation, list[np.ndarray]]:
    asked: list[np.ndarray] = []

    def run(positions: np.ndarray, _exact: bool) -> np.ndarray:
        asked.append(positions)
        return np.asarray(truth[positions])

    return list(approximate(run, shape, tolerance))[-1], asked


@pytest.mark.parametrize("shape", [(25, 25), (7, 40), (1, 30), (30, 1), (2, 2), (1, 1), (5, 3)])
def test_it_ends_for_any_grid_and_runs_no_window_twice_but_the_controls(shape: tuple[int, int]) -> None:
    found, asked = last_of(smooth_map(shape, 0), shape, 0.01)
    without_controls = np.concatenate([asked[0], *asked[2:]])
    assert len(np.unique(without_controls)) == len(without_controls)
    assert set(np.flatnonzero(found.was_run)) == set(without_controls.tolist())


@pytest.mark.parametrize("tolerance", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("seed", range(5))
def test_the_error_asked_for_is_kept_and_estimated_honestly(seed: int, tolerance: float) -> None:
    truth = smooth_map((25, 25), seed)
    found, _ = last_of(truth, (25, 25), tolerance)
    error = float(np.sqrt(np.mean((found.values - truth) ** 2)))
    assert found.error[0] <= tolerance * np.ptp(found.values)
    assert error <= 1.2 * found.error[0]


def test_windows_that_were_run_keep_their_value() -> None:
    truth = np.random.default_rng(1).normal(size=(400, 2))
    found, _ = last_of(truth, (20, 20), 0.5)
    assert np.array_equal(found.values[found.was_run], truth[found.was_run])


def test_it_looks_closer_where_the_map_is_steep() -> None:
    y, x = np.indices((41, 41))
    truth = np.exp(-((y - 8) ** 2 + (x - 8) ** 2) / 20).reshape(-1, 1)
    refinement = Refinement((41, 41), 1)
    coarse = coarse_windows((41, 41))
    refinement.add(coarse, truth[coarse])
    for _ in range(3):
        positions = refinement.next_windows()
        refinement.add(positions, truth[positions])
    done = refinement.was_run.reshape(41, 41)
    assert done[:17, :17].mean() > 1.3 * done[24:, 24:].mean()


def test_where_the_margin_costs_too_much_windows_are_run_exactly() -> None:
    truth, asked_exactly = smooth_map((25, 25), 3), []

    def run(positions: np.ndarray, exact: bool) -> np.ndarray:
        asked_exactly.append(exact)
        noise = np.random.default_rng(len(positions)).normal(size=(len(positions), 1))
        return np.asarray(truth[positions] + (0 if exact else noise))

    list(approximate(run, (25, 25), 0.05))
    assert asked_exactly[:2] == [False, True]
    assert all(asked_exactly[2:])


@pytest.mark.parametrize("name", ["coffee", "camera", "chelsea", "rocket", "china", "flower"])
def test_its_error_is_honest_on_real_pictures(
    lite0: LoadedModel, photographs: dict[str, Image.Image], name: str
) -> None:
    picture = lite0.tensor(lite0.card.preparation.prepare(photographs[name]).rgb)
    grid = WindowGrid.over((224, 224), (32, 32), (8, 8))
    cover = constant_cover(torch.zeros(3, 1, 1), grid.window)
    network = IncrementalNetwork(lite0.module)
    logits = in_order(network.occluded(picture, grid, cover)).double()
    target = int(logits.mean(0).argmax())
    exact = logits.softmax(1)[:, target].numpy()
    run_windows = network.sampler(picture, grid, cover, margin=64)

    def run(positions: np.ndarray, exactly: bool) -> np.ndarray:
        outputs = run_windows(positions, exact=exactly).double()
        return np.asarray(outputs.softmax(1)[:, [target]])

    *_, found = approximate(run, grid.shape, 0.08)
    error = float(np.sqrt(np.mean((found.values[:, 0] - exact) ** 2)))
    assert 0.4 * found.error[0] <= error <= 1.2 * found.error[0]
    assert found.was_run.mean() < 0.7
    one, other = found.values.reshape(25, 25), exact.reshape(25, 25)
    similarity = structural_similarity(one, other, win_size=7, data_range=float(np.ptp(other)))  # type: ignore[no-untyped-call]
    assert similarity > 0.75


def test_the_sampler_without_a_margin_is_exact_for_any_windows(lite0: LoadedModel) -> None:
    picture = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))
    grid = WindowGrid.over((224, 224), (40, 24), (37, 50))
    cover = constant_cover(torch.zeros(3, 1, 1), grid.window)
    network = IncrementalNetwork(lite0.module)
    expected = in_order(network.occluded(picture, grid, cover))
    positions = np.random.default_rng(0).permutation(len(grid))[:17]
    for margin, exact in ((None, False), (8, True)):
        outputs = network.sampler(picture, grid, cover, margin, batch_size=5)(positions, exact=exact)
        assert (outputs - expected[positions]).abs().max() <= 1e-5 * expected.abs().max()
    cut = network.sampler(picture, grid, cover, 8)(positions)
    assert (cut - expected[positions]).abs().max() > 1e-3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["constant", "zeros", "step", "bump", "saturated", "noise on a plain"])
def test_it_ends_whatever_the_map_is_like(kind: str) -> None:
    """On a flat part the filter of squares leaves less than nothing, and its root is no number."""
    shape = (61, 67)
    y, x = np.indices(shape) / 60
    maps = {
        "constant": np.full(shape, 0.3),
        "zeros": np.zeros(shape),
        "step": np.where(x > 0.5, 1.0, 0.3),
        "bump": 0.3 + np.exp(-(((y - 0.5) ** 2 + (x - 0.5) ** 2) / 0.002)),
        "saturated": 1 / (1 + np.exp(-80 * (x - y))),
        "noise on a plain": np.where(y < 0.3, np.random.default_rng(0).random(shape), 1e6),
    }
    truth = maps[kind].reshape(-1, 1)
    found, _ = last_of(truth, shape, 0.05)
    span = truth.max() - truth.min()
    assert np.isfinite(found.values).all()
    assert np.sqrt(((found.values - truth) ** 2).mean()) <= 0.2 * span + 1e-9
