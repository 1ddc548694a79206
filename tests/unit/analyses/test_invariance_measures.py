"""Numbers taken from curves and activations, held against definitions and peers."""

import numpy as np
import pytest

from occluscope.analyses.invariance.families import FAMILIES, once_round
from occluscope.analyses.invariance.measures import (
    area,
    local_firing,
    normalised_variance,
    rotational_symmetry,
    tolerance,
)


def test_tolerance_ends_with_the_unbroken_run() -> None:
    strengths = np.array([-3.0, -2, -1, 0, 1, 2, 3])
    assert tolerance(strengths, np.array([0.9, 0.1, 0.8, 0.8, 0.5, 0.4, 0.39]), 3) == (-1, 2)
    assert tolerance(strengths[3:], np.array([0.8, 0.1, 0.8, 0.8]), 0) == (None, 0)
    assert tolerance(strengths, np.full(7, 0.2), 3) == (-3, 3)


def test_area_is_the_mean_height() -> None:
    assert area(np.array([0.0, 1, 3]), np.array([1.0, 0, 0])) == pytest.approx(0.5 / 3)
    assert area(np.linspace(-5, 5, 11), np.full(11, 0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("order", range(1, 9))
def test_the_order_of_a_curve_is_that_of_its_slowest_harmonic(order: int) -> None:
    angles = np.deg2rad(np.arange(0, 360, 10))
    curve = 0.3 + 0.1 * np.cos(order * angles) + 0.05 * np.cos(2 * order * angles + 0.3)
    found = rotational_symmetry(curve + np.random.default_rng(order).normal(size=36) * 0.005)
    assert found.order == order
    assert order == 1 or found.strength > 0.95


def test_no_order_is_found_where_there_is_none() -> None:
    assert rotational_symmetry(np.full(36, 0.4)).order == 1
    orders = [rotational_symmetry(np.random.default_rng(seed).random(36)).order for seed in range(200)]
    assert np.mean(np.array(orders) == 1) > 0.97


def test_once_round_is_a_full_turn() -> None:
    rotate = FAMILIES["rotate"]
    assert once_round(rotate, np.arange(0.0, 360, 10)) == 36
    assert once_round(rotate, np.linspace(-180, 180, 25)) == 24
    assert once_round(rotate, np.linspace(-90, 90, 25)) == 0
    assert once_round(FAMILIES["hue"], np.linspace(-180, 180, 25)) == 0


def test_normalised_variance_is_that_of_tmeasures() -> None:
    """Its 1.2.11 gave these numbers for the same activations: ``pytorch.layer_measures.Variance`` of both orders."""
    activations = np.random.default_rng(0).normal(size=(5, 7, 3)) * np.linspace(0.1, 3, 7)[:, None]
    theirs = [1.1851777232530916, 1.347332550998756, 1.20798834129417]
    np.testing.assert_allclose(normalised_variance(activations), theirs, rtol=1e-9)


def test_a_unit_that_never_varies_has_no_normalised_variance() -> None:
    activations = np.random.default_rng(0).normal(size=(3, 4, 2))
    activations[..., 1] = 5.0
    assert np.isnan(normalised_variance(activations)).tolist() == [False, True]


def test_firing_by_hand() -> None:
    """Three pictures, four strengths; the unit fires on the third above 5.5, or (negative) on the first below 1.5."""
    unit = np.array([[1.0, 9, 9, 9], [2, 2, 2, 2], [9, 9, 6, 5]])[..., None]
    assert local_firing(unit, 0).tolist() == [0.75]
    assert np.isnan(local_firing(np.ones((3, 4, 1)), 0)).all()
