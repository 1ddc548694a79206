"""The engine on random small networks and geometries, against the network itself on covered pictures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from occluscope.engine.incremental import IncrementalNetwork
from occluscope.engine.incremental.kernels import convolve
from occluscope.engine.incremental.rules import convolution
from occluscope.engine.incremental.rules.pointwise import Pointwise
from occluscope.engine.incremental.rules.table import RULES, Call, rule
from occluscope.engine.incremental.steps import Native
from occluscope.engine.incremental.tracing import UntraceableError, trace
from occluscope.engine.ordering import in_order
from occluscope.windows import WindowGrid
from tests.effort import examples

CHANNELS = 8
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.LeakyReLU, nn.Identity)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.join = inner, join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.inner(x), x)


class InPlace(nn.Module):
    """Reads what an in-place operation has changed."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1.0
        z = functional.relu(y, inplace=True)
        return z + y * 2


class ChannelsLast(nn.Module):
    """As ConvNeXt: works on channels behind height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.scale = nn.Parameter(torch.rand(CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.linear(self.norm(x.permute(0, 2, 3, 1))))
        return x + self.scale * y.permute(0, 3, 1, 2)


class Excited(nn.Module):
    """Squeeze and excite: a step over the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([second, first * 2], dim=1)


def seeded(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
    return module.eval().requires_grad_(requires_grad=False)


@st.composite
def convolutions(draw: st.DrawFn, *, keeps_size: bool = False) -> nn.Module:
    if keeps_size:
        kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2))
        stride, padding = (1, 1), "same" if draw(st.booleans()) else (kernel - 1) * dilation // 2
    else:
        kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 2))
        stride, padding = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), draw(st.integers(0, 3))
    mode: Any = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    groups = draw(st.sampled_from([1, 2, CHANNELS]))
    convolution = nn.Conv2d(
        CHANNELS, CHANNELS, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()), padding_mode=mode
    )
    tail = [nn.BatchNorm2d(CHANNELS)] if draw(st.booleans()) else []
    return nn.Sequential(convolution, *tail, draw(st.sampled_from(ACTIVATIONS))())


@st.composite
def pools(draw: st.DrawFn) -> nn.Module:
    kernel = draw(st.integers(1, 4))
    stride, padding, ceil = draw(st.integers(1, 3)), draw(st.integers(0, kernel // 2)), draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)) if kernel > 1 else 1, ceil_mode=ceil)
    divisor = draw(st.sampled_from([None, None, 5]))
    return nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()), divisor)


@st.composite
def blocks(draw: st.DrawFn) -> nn.Module:
    kind = draw(st.integers(0, 9))
    if kind < 3:
        return draw(convolutions())
    if kind < 5:
        return draw(pools())
    inner = nn.Sequential(*(draw(convolutions(keeps_size=True)) for _ in range(draw(st.integers(1, 2)))))
    if kind == 5:
        return nn.Sequential(Residual(inner, torch.add), nn.ReLU())
    if kind == 6:
        return Residual(inner, torch.mul)
    if kind == 7:
        joined = Residual(inner, lambda new, old: torch.cat([old, new], dim=1))
        return nn.Sequential(joined, nn.Conv2d(2 * CHANNELS, CHANNELS, 1))
    return draw(st.sampled_from([Excited, ChannelsLast, Halves, InPlace]))()


HEADS: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "mean": lambda _h, _w: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 5)],
    "flatten": lambda h, w: [nn.Flatten(), nn.Dropout(), nn.Linear(CHANNELS * h * w, 5)],
    "adaptive": lambda _h, _w: [nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(CHANNELS * 6, 5)],
    "map": lambda _h, _w: [],
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, int], WindowGrid]:
    torch.manual_seed(draw(st.integers(0, 2**31)))
    size = draw(st.tuples(st.integers(9, 40), st.integers(9, 40)))
    body: list[nn.Module] = [nn.Conv2d(3, CHANNELS, 3, draw(st.integers(1, 2)), 1)]
    for _ in range(draw(st.integers(1, 5))):
        block = draw(blocks())
        try:
            with torch.inference_mode():
                shape = nn.Sequential(*body, block).eval()(torch.zeros(1, 3, *size)).shape
        except RuntimeError:  # larger than the map it would slide over
            continue
        if min(shape[2:]) >= 1:
            body.append(block)
    with torch.inference_mode():
        shape = nn.Sequential(*body).eval()(torch.zeros(1, 3, *size)).shape
    head = HEADS[draw(st.sampled_from(sorted(HEADS)))](int(shape[2]), int(shape[3]))
    window = draw(st.tuples(st.integers(1, size[0]), st.integers(1, size[1])))
    stride = draw(st.tuples(st.integers(3, 15), st.integers(3, 15)))
    return seeded(nn.Sequential(*body, *head)), size, WindowGrid.over(size, window, stride)


def by_whole_passes(module: nn.Module, picture: Tensor, grid: WindowGrid, patches: Tensor) -> Tensor:
    """Each window covered in a copy of the picture of its own."""
    covered = picture.repeat(len(grid), 1, 1, 1)
    for copy, patch, (y, x) in zip(covered, patches, grid.origins().tolist(), strict=True):
        copy[:, y : y + grid.window[0], x : x + grid.window[1]] = patch
    with torch.inference_mode():
        outputs: Tensor = module(covered)
    return outputs


def by_engine(module: nn.Module, picture: Tensor, grid: WindowGrid, patches: Tensor, **options: Any) -> Tensor:
    position = {tuple(origin): number for number, origin in enumerate(grid.origins().tolist())}

    def cover(origins: Tensor) -> Tensor:
        return patches[[position[tuple(origin)] for origin in origins.tolist()]]

    return in_order(IncrementalNetwork(module).occluded(picture, grid, cover, **options))


def relative_error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


@settings(max_examples=examples(50, 1000), deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_random_networks_and_geometries_are_exact(case: tuple[nn.Module, tuple[int, int], WindowGrid]) -> None:
    module, size, grid = case
    picture, patches = torch.randn(3, *size), torch.randn(len(grid), 3, *grid.window)
    expected = by_whole_passes(module, picture, grid, patches)
    assume(bool(torch.isfinite(expected).all()))  # a dilated pool may see nothing but padding
    assert relative_error(by_engine(module, picture, grid, patches, batch_size=7), expected) <= 1e-5


def small_network() -> nn.Module:
    torch.manual_seed(1)
    return seeded(
        nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU(),
            Residual(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), torch.add), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 4),
        )
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_of_any_size_and_both_precisions(dtype: torch.dtype, batch_size: int) -> None:
    module, grid = small_network().to(dtype), WindowGrid.over((30, 20), (5, 6), (4, 3))
    picture, patches = torch.randn(3, 30, 20, dtype=dtype), torch.randn(len(grid), 3, 5, 6, dtype=dtype)
    got = by_engine(module, picture, grid, patches, batch_size=batch_size)
    limit = 1e-5 if dtype == torch.float32 else 1e-13
    assert relative_error(got, by_whole_passes(module, picture, grid, patches)) <= limit


def test_it_computes_rectangles_and_not_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be exact and of no use: sizes of what the convolutions are given."""
    sizes: list[tuple[int, ...]] = []

    def spy(x: Tensor, *rest: Any) -> Tensor:
        sizes.append(tuple(x.shape))
        return convolve(x, *rest)

    monkeypatch.setattr(convolution, "convolve", spy)
    grid = WindowGrid.over((64, 64), (8, 8), (28, 28))
    by_engine(small_network(), torch.randn(3, 64, 64), grid, torch.zeros(len(grid), 3, 8, 8))
    # the picture alone, as traced and as fused; then nine windows: 8 + 2·2 pixels for 10 outputs, 10 + 2 for 12
    unoccluded = [(1, 3, 64, 64), (1, CHANNELS, 64, 64)]
    assert sizes == [*unoccluded, *unoccluded, (9, 3, 12, 12), (9, CHANNELS, 14, 14)]


def test_plans_serve_further_pictures_of_the_same_size() -> None:
    module = nn.Sequential(small_network(), nn.Flatten())
    network, grid = IncrementalNetwork(module.eval()), WindowGrid.over((30, 20), (5, 6), (8, 7))
    patches = torch.randn(3, 5, 6)
    for size in ((30, 20), (30, 20), (41, 20), (30, 20)):
        grid = WindowGrid.over(size, (5, 6), (8, 7))
        picture = torch.randn(3, *size)
        got = in_order(network.occluded(picture, grid, lambda origins: patches.expand(len(origins), -1, -1, -1)))
        expected = by_whole_passes(module, picture, grid, patches.expand(len(grid), -1, -1, -1))
        assert relative_error(got, expected) <= 1e-5


def test_more_padding_than_the_kernel_reaches() -> None:
    module = seeded(nn.Sequential(nn.Conv2d(3, CHANNELS, 1, (3, 2), 3), nn.Conv2d(CHANNELS, 4, 2, 2, 4, 1)))
    grid = WindowGrid.over((13, 1), (2, 1), (3, 1))
    picture, patches = torch.randn(3, 13, 1), torch.randn(len(grid), 3, 2, 1)
    got = by_engine(module, picture, grid, patches)
    assert relative_error(got, by_whole_passes(module, picture, grid, patches)) <= 1e-5


def test_the_module_is_left_as_it_was() -> None:
    module = small_network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    grid = WindowGrid.over((16, 16), (4, 4), (4, 4))
    picture, patches = torch.randn(3, 16, 16), torch.zeros(len(grid), 3, 4, 4)
    first = by_engine(module, picture, grid, patches)
    assert torch.equal(by_engine(module, picture, grid, patches), first)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        IncrementalNetwork(small_network().train())


def test_a_model_whose_way_depends_on_the_picture_is_refused() -> None:
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UntraceableError, match="Undecided cannot be traced"):
        IncrementalNetwork(Undecided().eval())


def test_a_model_that_tracing_changes_is_refused() -> None:
    """torch.fx takes `y += 1` for a new value; who reads the old name of the same memory would get another number."""

    class Aliased(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1.0
            z = y
            y += 0.5
            return z * 2

    grid = WindowGrid.over((16, 16), (4, 4), (4, 4))
    with pytest.raises(UntraceableError, match="other numbers than the model"):
        by_engine(Aliased().eval(), torch.randn(3, 16, 16), grid, torch.zeros(len(grid), 3, 4, 4))


def test_users_can_add_a_rule() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.ones_like(x) * 2

    module = seeded(nn.Sequential(nn.Conv2d(3, CHANNELS, 3), Doubled(), nn.AdaptiveAvgPool2d(1)))
    assert any(isinstance(step.operation, Native) for step in trace(module))

    @rule(Doubled)
    def doubled(call: Call) -> Any:
        return Pointwise(call.target), [call.args[0]]

    try:
        assert not any(isinstance(step.operation, Native) for step in trace(module))
        grid = WindowGrid.over((16, 16), (4, 4), (4, 4))
        picture, patches = torch.randn(3, 16, 16), torch.zeros(len(grid), 3, 4, 4)
        got = by_engine(module, picture, grid, patches)
        assert relative_error(got, by_whole_passes(module, picture, grid, patches)) <= 1e-5
    finally:
        del RULES[Doubled]


def test_work_that_is_always_whole_counts_as_such() -> None:
    """Few of this network's multiplications are in its convolution, and the rest cannot be followed."""
    grid = WindowGrid.over((32, 32), (4, 4), (8, 8))
    mostly_linear = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2048, 500)).eval()
    mostly_convolution = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    shares = []
    for module in (mostly_linear, mostly_convolution):
        network = IncrementalNetwork(module)
        list(network.occluded(torch.randn(3, 32, 32), grid, lambda origins: torch.zeros(len(origins), 3, 4, 4)))
        shares.append(network.passes / len(grid))
    assert 0.98 < shares[0] <= 1
    assert shares[1] == pytest.approx((36 * 64 * 27 + 320) / (900 * 64 * 27 + 320), rel=1e-6)
