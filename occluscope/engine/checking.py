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

# What rounding may make of the largest output. Far over what it does, far under what a misread operation does.
_ROUNDING: Final = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 6e-2, torch.float16: 1e-2}
_EFFECT: Final = 0.01  # of what covering the windows changes of an output
_PRECISE_ROUNDING: Final = 1e-12  # of the largest output, in float64: of an output that no window changes
# Where rounding hides what windows change, more precise numbers decide.
_MORE_PRECISE: Final[dict[torch.dtype, tuple[torch.dtype, ...]]] = {
    torch.float32: (torch.float64,),
    torch.bfloat16: (torch.float32, torch.float64),
    torch.float16: (torch.float32, torch.float64),
}
_OWN_ROUNDING: Final = 10  # times the model's own error of rounding, measured against more precise numbers
_COPY_BYTES: Final = 2 * 2**30  # most memory that the weights may take in more precise numbers
_MIXED: Final = 0.1  # of what an output differs by between windows
_SHARE: Final = 1e-3  # of an output's own value, by which it may differ on pictures that come later
_GROWTH: Final = 100  # times the error of rounding that the check found of an output, on such pictures
_USUAL: Final = 100  # times the median of a model's outputs: larger ones do not count for the others' rounding
_PLACES: Final = (0, 4, 5, 8)  # of three by three windows: two corners, the middle, the right edge


@dataclass(frozen=True)
class Tolerance:
    """What outputs may differ by: `share` of their largest value. own: how many a picture are the model's own.

    The others are sums of layers' channels, which may be of quite another size, and of which one may be the small
    difference of large activations. rounding: float64 [own], the error of rounding that each of the model's own outputs
    was found to have by itself; none: each is held to the largest value alone.
    """

    share: float
    own: int
    rounding: Tensor | None = None

    def holds(self, found: Tensor, expected: Tensor) -> bool:
        """Whether outputs [windows, …] are as expected; what is not finite must be so in both."""
        if found.shape != expected.shape:
            return False
        if any(_error(*both) > self.share for both in zip(self.parts(found), self.parts(expected), strict=True)):
            return False
        return self.rounding is None or self._each_holds(found, expected, self.rounding)

    def _each_holds(self, found: Tensor, expected: Tensor, rounding: Tensor) -> bool:
        """Whether each output by itself is as expected: a small one may stand beside a large one."""
        eps = torch.finfo(expected.dtype).eps
        found, expected = (self.parts(outputs)[0].double() for outputs in (found, expected))
        if rounding.numel() != expected.shape[1]:
            return True  # a model whose number of outputs is not always the same
        sizes = expected.abs()
        some = sizes[expected.isfinite() & (sizes > 0)]
        if not some.numel():
            return True
        # An output that is near zero because large terms cancel has the rounding of those terms, as the others have.
        usual = min(float(some.max()), _USUAL * float(some.median()))
        allowed = torch.maximum(_SHARE * sizes, _GROWTH * rounding.to(expected.device)).clamp(min=10 * eps * usual)
        return bool(((found - expected).abs() <= allowed)[expected.isfinite()].all())

    def parts(self, outputs: Tensor) -> list[Tensor]:
        """The outputs of each size apart: [windows, …]."""
        outputs = outputs.reshape(len(outputs), -1)
        return [part for part in (outputs[:, : self.own], outputs[:, self.own :]) if part.numel()]


@dataclass(frozen=True)
class _Run:
    """A few windows run both ways. clear: the outputs without any; expected: by whole passes; found: followed."""

    clear: Tensor
    expected: Tensor
    found: Tensor
    own: int

    @property
    def agrees(self) -> bool:
        """Whether the outputs differ by rounding alone, and that is little beside what the windows change."""
        if not Tolerance(_ROUNDING[self.expected.dtype], self.own).holds(self.found, self.expected):
            return False
        parts = Tolerance(0, self.own).parts
        return all(
            _columns_agree(*three)
            for three in zip(parts(self.clear), parts(self.expected), parts(self.found), strict=True)
        )

    @property
    def rounding(self) -> Tensor:
        """By how much each of the model's own outputs differs, at least by its own last digit: float64 [own]."""
        own = Tolerance(0, self.own).parts
        found, expected = own(self.found)[0].double(), own(self.expected)[0].double()
        last_digit = torch.finfo(self.expected.dtype).eps * expected.abs().nan_to_num(0, 0, 0).amax(0)
        return torch.maximum((found - expected).abs().nan_to_num(0, 0, 0).amax(0), last_digit)


def _columns_agree(clear: Tensor, expected: Tensor, found: Tensor) -> bool:
    """Whether each output by itself differs by little beside what the windows change of it.

    A small output may stand beside a large one, and be wrong by far less than that one's rounding.
    """
    finite = (expected.isfinite() & clear.isfinite()).all(0)
    if not finite.any():
        return True
    dtype = expected.dtype
    clear, expected, found = (one[:, finite].double() for one in (clear, expected, found))
    error, effect = (found - expected).abs().amax(0), (expected - clear).abs().amax(0)
    precise, size = dtype == torch.float64, expected.abs().amax(0)
    rounding = _PRECISE_ROUNDING * size.max() if precise else 2 * torch.finfo(dtype).eps * size
    return bool((error <= torch.maximum(_EFFECT * effect, rounding)).all())


def check(network: IncrementalNetwork, module: nn.Module, picture: Tensor, layers: Sequence[str] = ()) -> Tolerance:
    """Run a few windows of noise both ways; gives what their outputs may differ by.

    They must agree within rounding, and to a hundredth of what the windows change. Where rounding is too much for
    that, as it is in half precision, copies of more precise numbers must. The whole passes run one window at a time: a
    model whose pictures in a batch influence each other agrees with no batch.
    module: what the network follows. picture: [channels, height, width]. layers: as of `IncrementalNetwork`.

    Raises
    ------
    UntraceableError
        They do not agree.
    """
    name = type(module).__name__
    colour = _noise(picture)
    plain = _run(network, module, picture, colour, layers)
    share = _ROUNDING.get(plain.expected.dtype)
    if share is None:
        raise UntraceableError(f"{name} gives {plain.expected.dtype}")
    if not plain.expected.isfinite().any():
        raise UntraceableError(f"{name} gives no finite numbers that it could be held against")
    if plain.agrees:
        return Tolerance(share, plain.own, plain.rounding)
    for dtype in _MORE_PRECISE.get(picture.dtype, ()):
        precise = _run_precisely(module, picture.to(dtype), colour.to(dtype), layers)
        if precise is None or not precise.agrees:
            continue
        rounding = _largest_error(plain.expected, precise.expected, plain.own)
        tolerance = Tolerance(max(share, _OWN_ROUNDING * rounding), plain.own, plain.rounding)
        if tolerance.holds(plain.found, precise.expected):
            return tolerance
    raise UntraceableError(f"{name}, followed, gives other numbers than the model when a window is covered")


def _run(
    network: IncrementalNetwork, module: nn.Module, picture: Tensor, colour: Tensor, layers: Sequence[str]
) -> _Run:
    whole = WithSums(module, layers) if layers else module
    grid, positions = _grid(picture), np.array(_PLACES)
    with torch.inference_mode():
        clear, own = (
            whole(picture[None].clone(memory_format=torch.contiguous_format)),
            int(module(picture[None].clone(memory_format=torch.contiguous_format)).numel()) if layers else 0,
        )
    expected = by_whole_passes(whole, picture, grid, colour, positions)
    run = network.sampler(picture, grid, constant_cover(colour, grid.window), None)
    return _Run(clear, expected, run(positions, exact=True), own or clear.numel())


def _run_precisely(module: nn.Module, picture: Tensor, colour: Tensor, layers: Sequence[str]) -> _Run | None:
    """The same with a copy of the module in the picture's precision; none where that cannot be had.

    colour: in that precision the very one that the module itself was given.
    """
    if picture.element_size() * sum(parameter.numel() for parameter in module.parameters()) > _COPY_BYTES:
        return None
    precise = private_copy(module)
    for part in precise.modules():  # not `precise.to(dtype)`: that would write into parameters that are shared
        for tensors in (part._parameters, part._buffers):  # noqa: SLF001 - torch has no public names
            tensors.update({name: _converted(value, picture.dtype) for name, value in tensors.items()})
    try:
        run = _run(IncrementalNetwork(precise, layers), precise, picture, colour, layers)
    except Exception:  # noqa: BLE001 - many models have parts of one precision for good
        return None
    return run if run.expected.dtype == picture.dtype else None


def by_whole_passes(
    module: nn.Module, picture: Tensor, grid: WindowGrid, colour: Tensor, positions: np.ndarray
) -> Tensor:
    """The model's outputs for some windows of one colour, each run by itself: [windows, …]."""
    cover = constant_cover(colour, grid.window)
    origins = torch.from_numpy(grid.origins()[positions]).to(picture.device)
    with torch.inference_mode():
        return torch.cat([module(covered(picture, one, cover(one)).contiguous()) for one in origins[:, None]])


def mixes_pictures(module: nn.Module, picture: Tensor) -> bool:
    """Whether what a model gives for a picture depends on the others in its batch (batch norm in training mode does).

    picture: [channels, height, width]; windows of noise in it are run together, and each by itself.
    """
    grid, colour, positions = _grid(picture), _noise(picture), np.array(_PLACES)
    alone = by_whole_passes(module, picture, grid, colour, positions)
    origins = torch.from_numpy(grid.origins()[positions]).to(picture.device)
    with torch.inference_mode():
        together = module(covered(picture, origins, constant_cover(colour, grid.window)(origins)).contiguous())
    if not Tolerance(10 * _ROUNDING.get(picture.dtype, 1e-2), alone[0].numel()).holds(together, alone):
        return True
    one, several = (outputs.reshape(len(outputs), -1).double().nan_to_num() for outputs in (alone, together))
    rounding = 10 * torch.finfo(alone.dtype).eps * one.abs().amax(0) if alone.is_floating_point() else 0 * one[0]
    allowed = torch.maximum(_MIXED * (one.amax(0) - one.amin(0)), rounding)  # each output by itself
    return bool(((several - one).abs().amax(0) > allowed).any())


def _converted(value: Any, dtype: torch.dtype) -> Any:
    """A parameter or buffer in another precision, where it is a number."""
    if value is None or not value.is_floating_point():
        return value
    converted = value.detach().to(dtype)
    return nn.Parameter(converted, requires_grad=False) if isinstance(value, nn.Parameter) else converted


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


def _largest_error(found: Tensor, expected: Tensor, own: int) -> float:
    parts = Tolerance(0, own).parts
    return max(_error(*both) for both in zip(parts(found), parts(expected), strict=True))


def _error(found: Tensor, expected: Tensor) -> float:
    """Largest difference ÷ largest expected value; infinite where one is finite and the other is not."""
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return float("inf")
    if not finite.any():
        return 0.0
    difference = (found[finite].double() - expected[finite].double()).abs().max()
    return float(difference / expected[finite].double().abs().max().clamp(min=torch.finfo(torch.float32).tiny))
