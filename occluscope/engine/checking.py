"""Holding a followed network against the model itself, window by window, before its numbers are believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.engine.covers import constant_cover, covered
from occluscope.engine.incremental import IncrementalNetwork
from occluscope.engine.layers import WithSums
from occluscope.engine.mutation import UntraceableError
from occluscope.engine.preserving import private_copy
from occluscope.windows import WindowGrid

_DOUBLE_ERROR: Final = 1e-9  # of the largest output: what the same sums in another order may differ by in float64
_OWN_ROUNDING: Final = 20  # times the model's own error of rounding, measured against float64
_ROUNDINGS: Final = 100  # of the precision in use, of the largest output
_LARGEST_ROUNDING: Final = 1e-2  # of the largest output; a model off by more computes something else in float64
_DOUBLE_BYTES: Final = 2 * 2**30  # most memory that the weights may take in float64
_PLACES: Final = (0, 4, 5, 8)  # of three by three windows: two corners, the middle, the right edge


@dataclass(frozen=True)
class Tolerance:
    """What outputs may differ by: `share` of their largest value. own: how many a picture are the model's own.

    The others are sums of layers' channels, which may be of quite another size.
    """

    share: float
    own: int

    def holds(self, found: Tensor, expected: Tensor) -> bool:
        """Whether outputs [windows, …] are as expected; what is not finite must be so in both."""
        if found.shape != expected.shape:
            return False
        return all(_error(*both) <= self.share for both in zip(self._parts(found), self._parts(expected), strict=True))

    def _parts(self, outputs: Tensor) -> list[Tensor]:
        outputs = outputs.reshape(len(outputs), -1)
        return [part for part in (outputs[:, : self.own], outputs[:, self.own :]) if part.numel()]


def check(network: IncrementalNetwork, module: nn.Module, picture: Tensor, layers: Sequence[str] = ()) -> Tolerance:
    """Run a few windows of noise both ways; gives what their outputs may differ by.

    In float64, where rounding is far below every effect, followed and whole passes must agree to 1e-9; and in the
    precision in use, as far as the model's own rounding goes. The whole passes run one window at a time: a model whose
    pictures in a batch influence each other agrees with no batch.
    module: what the network follows. picture: [channels, height, width]. layers: as of `IncrementalNetwork`.

    Raises
    ------
    UntraceableError
        They do not agree.
    """
    name = type(module).__name__
    whole = WithSums(module, layers) if layers else module
    grid, cover = _grid(picture), _noise(picture)
    positions = np.array(_PLACES)
    expected = by_whole_passes(whole, picture, grid, cover, positions)
    share = _ROUNDINGS * torch.finfo(picture.dtype).eps
    own = _outputs(module, picture)
    exact = _in_double(module, picture, layers, grid, cover, positions)
    if exact is not None:
        expected64, found64 = exact
        if not Tolerance(_DOUBLE_ERROR, own).holds(found64, expected64):
            raise UntraceableError(f"{name}, followed, gives other numbers than the model when a window is covered")
        parts = Tolerance(0, own)._parts  # noqa: SLF001
        rounding = max(_error(*both) for both in zip(parts(expected.double()), parts(expected64), strict=True))
        if rounding < _LARGEST_ROUNDING:
            expected, share = expected64, share + _OWN_ROUNDING * rounding
    tolerance = Tolerance(share, own)
    run = network.sampler(picture, grid, constant_cover(cover, grid.window), None)
    if not tolerance.holds(run(positions, exact=True).to(expected.dtype), expected):
        raise UntraceableError(f"{name}, followed, gives other numbers than the model when a window is covered")
    return Tolerance(2 * share, own)  # between two that are both rounded


def by_whole_passes(
    module: nn.Module, picture: Tensor, grid: WindowGrid, colour: Tensor, positions: np.ndarray
) -> Tensor:
    """The model's outputs for some windows of one colour, each run by itself: [windows, …]."""
    cover = constant_cover(colour, grid.window)
    origins = torch.from_numpy(grid.origins()[positions]).to(picture.device)
    with torch.inference_mode():
        return torch.cat([module(covered(picture, one, cover(one))) for one in origins[:, None]])


def mixes_pictures(module: nn.Module, picture: Tensor) -> bool:
    """Whether what a model gives for a picture depends on the others in its batch (batch norm in training mode does).

    picture: [channels, height, width]; windows of noise in it are run together, and each by itself.
    """
    grid, colour, positions = _grid(picture), _noise(picture), np.array(_PLACES)
    alone = by_whole_passes(module, picture, grid, colour, positions)
    origins = torch.from_numpy(grid.origins()[positions]).to(picture.device)
    with torch.inference_mode():
        together = module(covered(picture, origins, constant_cover(colour, grid.window)(origins)))
    return not Tolerance(_ROUNDINGS * torch.finfo(picture.dtype).eps, alone[0].numel()).holds(together, alone)


def _in_double(
    module: nn.Module,
    picture: Tensor,
    layers: Sequence[str],
    grid: WindowGrid,
    colour: Tensor,
    positions: np.ndarray,
) -> tuple[Tensor, Tensor] | None:
    """What a copy in float64 gives by whole passes, and followed; none where it cannot be had."""
    if 8 * sum(parameter.numel() for parameter in module.parameters()) > _DOUBLE_BYTES:
        return None
    try:
        double = private_copy(module)
        for part in double.modules():  # not `double.double()`: that would write into parameters that are shared
            for own in (part._parameters, part._buffers):  # noqa: SLF001 - torch has no public names
                own.update({name: _doubled(value) for name, value in own.items()})
        picture, colour = picture.double(), colour.double()
        expected = by_whole_passes(WithSums(double, layers) if layers else double, picture, grid, colour, positions)
    except Exception:  # noqa: BLE001 - many models have parts in float32 for good
        return None
    if expected.dtype != torch.float64:
        return None
    run = IncrementalNetwork(double, layers).sampler(picture, grid, constant_cover(colour, grid.window), None)
    return expected, run(positions, exact=True)


def _doubled(value: Any) -> Any:
    """A parameter or buffer in float64, where it is a number."""
    if value is None or not value.is_floating_point():
        return value
    doubled = value.detach().double()
    return nn.Parameter(doubled, requires_grad=False) if isinstance(value, nn.Parameter) else doubled


def _grid(picture: Tensor) -> WindowGrid:
    """Three by three windows of a fifth of the picture, none of them on a round number."""
    axes = []
    for length in picture.shape[1:]:
        window = max(round(length / 5), 1)
        axes.append((window, (0, (length - window) * 4 // 9, length - window)))
    (height, y), (width, x) = axes
    return WindowGrid((height, width), y, x)


def _noise(picture: Tensor) -> Tensor:
    """A colour that the picture does not have: [channels, 1, 1]."""
    reach = float(picture.abs().max()) or 1.0
    random = torch.Generator().manual_seed(0)
    colour = (2 * torch.rand(len(picture), 1, 1, generator=random, dtype=torch.float64) - 1) * reach
    return colour.to(picture.device, picture.dtype)


def _outputs(module: nn.Module, picture: Tensor) -> int:
    with torch.inference_mode():
        return int(module(picture[None].clone()).numel())


def _error(found: Tensor, expected: Tensor) -> float:
    """Largest difference ÷ largest expected value; infinite where one is finite and the other is not."""
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return float("inf")
    if not finite.any():
        return 0.0
    difference = (found[finite].double() - expected[finite].double()).abs().max()
    return float(difference / expected[finite].double().abs().max().clamp(min=torch.finfo(torch.float32).tiny))
