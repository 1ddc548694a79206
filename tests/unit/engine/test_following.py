"""Whatever a model does inside, its windows come out as whole passes give them, and the model as it was."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from occluscope.engine.covers import constant_cover
from occluscope.engine.preserving import preserved
from tests.unit.engine.networks import (
    CHANNELS,
    COLOUR,
    GRID,
    SIZE,
    Forward,
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


def scaled(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    z = net.two(y)
    y.mul_(0.5)
    return net.head(net.two(y + z))


def subtracted(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    z = net.norm(y)
    z.sub_(y)
    y.sub_(1)
    return net.head(net.two(z * y))


def dropped_activation(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    net.relu(y)
    return net.head(net.two(y))


def activations_in_place(net: Net, x: Tensor) -> Tensor:
    y = net.leaky(net.one(x))
    functional.relu_(y)
    functional.elu(y, 1.0, True)
    functional.hardswish(y, inplace=True)
    y.sigmoid_()
    return net.head(net.dropout(net.two(y)))


def given_out(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    z = net.two(y)
    torch.mul(y, z, out=y)
    return net.head(net.two(y) + z)


def rarer_methods(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    z = net.two(y)
    y.lerp_(z, 0.3).addcmul_(z, z, value=0.1).masked_fill_(y < 0, -1.0)
    y.add_(z, alpha=2)
    return net.head(net.two(y))


def of_the_input(net: Net, x: Tensor) -> Tensor:
    x.clamp_(-0.5, 0.5)
    return net.head(net.one(x))


def with_layout(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.head(y.view(y.shape[0], -1).view(y.shape[0], CHANNELS, *SIZE))


def same_layers_twice(net: Net, x: Tensor) -> Tensor:
    y = net.leaky(net.two(net.leaky(net.one(x))))
    return net.head(net.leaky(net.two(y)) + y)


FOLLOWED = [
    residual, scaled, subtracted, dropped_activation, activations_in_place, given_out, rarer_methods, of_the_input,
    with_layout, same_layers_twice,
]  # fmt: skip


def views(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    y.view(len(y) if isinstance(y, Tensor) else y.shape[0], -1).mul_(0.3)
    return net.head(net.two(y))


def parts(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    first, second = y.chunk(2, 1)
    first.mul_(2)
    return net.head(torch.cat([y[:, :4], second], 1))


def same_memory_under_two_names(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    z = y
    y += net.two(y)
    return net.head(net.two(z))


def items(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    y[:, 0] = 0
    y[:, 1:3, 4:9] *= 2
    return net.head(net.two(y))


def by_its_values(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.head(y * 2 if y.mean() > 0 else y)


def of_the_batch(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.head(y - y.mean(0, keepdim=True) + y.mean() * y)


def own_buffer(net: Net, x: Tensor) -> Tensor:
    net.norm.running_mean.add_(1.0)  # type: ignore[union-attr]
    return net.head(net.norm(net.one(x)))


WHOLE = [views, parts, same_memory_under_two_names, items, by_its_values, of_the_batch, own_buffer, at_random]


@pytest.mark.parametrize("forward", FOLLOWED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_writes_in_place_is_followed_and_right(forward: Forward, dtype: torch.dtype) -> None:
    picture = torch.randn(3, *SIZE, dtype=dtype)
    net, kept = made(forward, dtype), picture.clone()
    before = state(net)
    followed, told = quietly(net, picture)
    got = windows(followed, picture)
    assert_same(state(net), before)
    assert torch.equal(picture, kept)
    right = expected(net, picture)
    assert (followed.reason, told) == (None, [])
    assert followed.network is not None
    assert float((got - right).abs().max()) <= (1e-6 if dtype == torch.float32 else 1e-13)
    assert float((right - net(picture[None].clone())).abs().max()) > 1e-4  # the windows are felt


@pytest.mark.parametrize("forward", WHOLE)
def test_what_cannot_be_followed_is_run_whole_with_one_warning(forward: Forward) -> None:
    picture = torch.randn(3, *SIZE)
    net = made(forward)
    before = state(net)
    with preserved(net):
        followed, told = quietly(net, picture)
        with warnings.catch_warnings(record=True) as later:
            got = windows(followed, picture)
    assert_same(state(net), before)
    assert not later
    assert [message.endswith("whole forward passes are used instead") for message in told] == [True]
    assert followed.reason is not None
    with preserved(net):
        right = expected(made(forward), picture)
    if forward is at_random:
        assert got.shape == right.shape
    elif forward is not own_buffer:  # which counts its passes
        torch.testing.assert_close(got, right, rtol=0, atol=1e-6)


def test_a_model_that_keeps_what_it_saw_is_followed_and_left_without_it() -> None:
    def keeping(net: Net, x: Tensor) -> Tensor:
        net.passed += 1
        y = net.one(x)
        net.last = y
        return net.head(y)

    net, picture = made(keeping), torch.randn(3, *SIZE)
    before = state(net)
    with preserved(net):
        followed, _ = quietly(net, picture)
        got = windows(followed, picture)
    assert_same(state(net), before)
    torch.testing.assert_close(got, expected(net, picture), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sharpness", [3.0, 12.0, 20.0])
def test_a_window_over_the_peak_of_an_exponential_leaves_the_mean_of_the_rest(sharpness: float) -> None:
    """The peak holds nearly all of the sum; what is left without it is far under the total's rounding."""

    def log_sum_exp(net: Net, x: Tensor) -> Tensor:
        scores: Tensor = net.linear(torch.log(torch.exp(net.one(x) * sharpness).mean((2, 3))) / sharpness)
        return scores

    picture = torch.randn(3, *SIZE) * 0.1
    picture[:, 12:15, 14:17] = 4
    net = made(log_sum_exp)
    followed, told = quietly(net, picture)
    got, right = windows(followed, picture), expected(net, picture)
    assert told == []
    torch.testing.assert_close(got, right, rtol=0, atol=2e-6)
    assert float((right[12] - net(picture[None])).abs().max()) > 0.1  # the window over the peak


@pytest.mark.parametrize(
    "small",
    [
        lambda y: y.mean((2, 3)) - 0.5 * y.mean((0, 2, 3))[None],
        lambda y: torch.where(y > 0, y, y.mean()).mean((2, 3)),
        lambda y: (y / y.std()).mean((2, 3)),
    ],
)
def test_a_small_output_beside_a_large_one_is_checked_by_itself(small: Callable[[Tensor], Tensor]) -> None:
    """It mixes the pictures of a batch, by far less than the other's rounding."""

    def heads(net: Net, x: Tensor) -> Tensor:
        y = functional.relu(net.one(x))
        return torch.cat([1e6 * net.two(y).mean((2, 3)), small(net.two(y)[:, :1])], 1)

    net, picture = made(heads), torch.randn(3, *SIZE)
    followed, told = quietly(net, picture)
    got, right = windows(followed, picture), expected(net, picture)
    assert len(told) == 1
    assert followed.reason is not None
    effect = (right - net(picture[None].clone()))[:, -1].abs().max()
    assert float((got - right)[:, -1].abs().max()) <= 1e-3 * float(effect)


def test_hooks_are_neither_called_by_tracing_nor_ignored() -> None:
    """A hook that changes what a layer gives is part of what the model computes."""
    net, picture = made(lambda net, x: net.head(net.two(net.one(x)))), torch.randn(3, *SIZE)
    seen: list[type] = []

    def halved(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        seen.append(type(output))
        return output / 2

    net.one.register_forward_hook(halved)
    followed, told = quietly(net, picture)
    assert "has hooks" in told[0]
    torch.testing.assert_close(windows(followed, picture), expected(net, picture), rtol=0, atol=1e-6)
    assert set(seen) == {Tensor}


def test_training_mode_is_run_one_window_at_a_time_and_its_statistics_are_put_back() -> None:
    net, picture = made(lambda net, x: net.head(net.norm(net.one(x)))), torch.randn(3, *SIZE)
    net.norm.train()
    net.training = True
    before = state(net)
    with preserved(net):
        followed, told = quietly(net, picture)
        got = windows(followed, picture)
    assert_same(state(net), before)
    assert "training mode" in told[0]
    with preserved(net):
        torch.testing.assert_close(got, expected(net, picture), rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda y: (y, y), lambda y: {"scores": y}, lambda y: [y]])
def test_other_outputs_than_a_tensor_are_left_to_whole_passes(wrap: Callable[[Tensor], Any]) -> None:
    net, picture = made(lambda net, x: wrap(net.head(net.one(x)))), torch.randn(3, *SIZE)
    followed, told = quietly(net, picture)
    assert len(told) == 1
    assert followed.reason is not None
    cover = constant_cover(COLOUR, GRID.window)
    _, outputs = next(followed.occluded(picture, GRID, cover, whole_batch=1))
    assert type(outputs) is type(wrap(torch.empty(0)))


@pytest.mark.parametrize(
    "parametrize", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm]
)
def test_parametrized_weights_are_right_and_left_alone(parametrize: Callable[[nn.Module], nn.Module]) -> None:
    net, picture = made(lambda net, x: net.head(net.two(net.one(x)))), torch.randn(3, *SIZE)
    parametrize(net.two).eval()
    before = state(net)
    followed, _ = quietly(net, picture)
    got = windows(followed, picture)
    assert_same(state(net), before)
    torch.testing.assert_close(got, expected(net, picture), rtol=0, atol=1e-6)


def test_half_precision_is_followed_and_as_near_to_the_truth_as_whole_passes_are() -> None:
    net, picture = made(residual, torch.bfloat16), torch.randn(3, *SIZE, dtype=torch.bfloat16)
    followed, told = quietly(net, picture)
    assert (followed.reason, told) == (None, [])
    true = expected(made(residual, torch.bfloat16).float(), picture.float())
    error, own_error = (
        float((outputs.float() - true).abs().max()) for outputs in (windows(followed, picture), expected(net, picture))
    )
    assert error <= 3 * own_error
