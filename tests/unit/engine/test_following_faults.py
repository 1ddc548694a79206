"""What goes wrong while a model is followed is made good, and leaves no trace in the model."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from occluscope import Occlusion
from occluscope.engine.covers import constant_cover
from occluscope.engine.following import Followed
from occluscope.engine.layers import layer_outputs
from occluscope.engine.naive import occluded_outputs
from occluscope.engine.preserving import fingerprint
from tests.unit.engine.networks import (
    COLOUR,
    GRID,
    SIZE,
    Net,
    assert_same,
    at_random,
    expected,
    made,
    quietly,
    residual,
    state,
    windows,
)


def test_what_goes_wrong_while_windows_run_is_made_good_by_whole_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the check, as another picture may bring it: an exception at the second batch, or wrong numbers."""
    net, picture = made(residual), torch.randn(3, *SIZE)
    for numbers_go_wrong in (True, False):
        followed, _ = quietly(net, picture)
        network = followed.network
        assert network is not None
        usual = network.occluded

        def broken(*args: Any, wrong: bool = numbers_go_wrong, usual: Any = usual) -> Any:
            for number, (positions, outputs) in enumerate(usual(*args[:3], 7)):
                if wrong:
                    yield positions, outputs * 1.01
                elif number == 1:
                    raise IndexError("a kernel's own fault")
                else:
                    yield positions, outputs

        monkeypatch.setattr(network, "occluded", broken)
        with pytest.warns(UserWarning, match="whole forward passes are used instead") as told:
            got = windows(followed, picture)
        assert len(told) == 1
        assert followed.reason is not None
        torch.testing.assert_close(got, expected(net, picture), rtol=0, atol=1e-6)


def test_samples_are_held_against_the_model_too(monkeypatch: pytest.MonkeyPatch) -> None:
    net, picture = made(residual), torch.randn(3, *SIZE)
    followed, _ = quietly(net, picture)
    assert followed.network is not None
    usual, cover = followed.network.sampler, constant_cover(COLOUR, GRID.window)

    def off(*args: Any) -> Any:
        run = usual(*args)
        return lambda positions, exact: run(positions, exact=exact) * 1.01

    monkeypatch.setattr(followed.network, "sampler", off)
    with pytest.warns(UserWarning, match="gives other numbers"):
        run = followed.sampler(picture, GRID, cover, None)
    torch.testing.assert_close(run(np.array([3, 11])), expected(net, picture)[[3, 11]], rtol=0, atol=1e-6)


def test_a_model_that_was_changed_is_told_from_what_it_was() -> None:
    net = made(residual)
    before = fingerprint(net)
    assert fingerprint(net) == before
    with torch.no_grad():
        net.one.weight.mul_(2)
    assert fingerprint(net) != before
    changed = fingerprint(net)
    net.norm.train()
    assert fingerprint(net) != changed


def test_a_failed_check_takes_no_random_numbers() -> None:
    """What a model that draws some gives under a seed is what it gives without the check."""
    net, picture = made(at_random), torch.randn(3, *SIZE)
    torch.manual_seed(7)
    with pytest.warns(UserWarning, match="gives other numbers"):
        followed = Followed(net, picture)
    cover = constant_cover(COLOUR, GRID.window)
    got = torch.cat([outputs for _, outputs in followed.occluded(picture, GRID, cover, whole_batch=1)])
    torch.manual_seed(7)
    right = torch.cat([outputs for _, outputs in occluded_outputs(net, picture, GRID, cover, 1)])
    assert torch.equal(got, right)


def test_a_model_that_raises_is_left_as_it_was() -> None:
    def fragile(net: Net, x: Tensor) -> Tensor:
        net.passed += 1
        net.relu.inplace = False
        if net.passed > 1:
            raise ArithmeticError("the model's own fault")
        return net.head(net.norm(net.relu(net.one(x))))

    net, pictures = made(fragile), torch.randn(2, 3, *SIZE)
    before = state(net)
    with warnings.catch_warnings(), pytest.raises(ArithmeticError, match="the model's own fault"):
        warnings.simplefilter("ignore")
        Occlusion(net).attribute(pictures, (3, 7, 8), (3, 5, 6), target=1)
    assert_same(state(net), before)


def test_layers_that_are_not_there_leave_no_hooks_behind() -> None:
    net, picture = made(residual), torch.randn(3, *SIZE)
    before = state(net)
    with pytest.raises(AttributeError, match="nowhere"):
        layer_outputs(net, picture[None], ["one", "nowhere"])
    assert_same(state(net), before)
