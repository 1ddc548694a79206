"""Compares a followed network with the model itself, window by window, before its numbers are used."""

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

# Rounding may change outputs by this share of the largest. It changes them far less, a misread operation far more.
_ROUNDING: Final = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 6e-2, torch.float16: 1e-2}
_EFFECT: Final = 0.01  # of the change of an output by covering windows
_PRECISE_ROUNDING: Final = 1e-12  # of the largest output, in float64: for an output that no window changes
# If rounding hides what windows change, the comparison is repeated in higher precision.
_MORE_PRECISE: Final[dict[torch.dtype, tuple[torch.dtype, ...]]] = {
    torch.float32: (torch.float64,),
    torch.bfloat16: (torch.float32, torch.float64),
    torch.float16: (torch.float32, torch.float64),
}
_OWN_ROUNDING: Final = 10  # times the model's own rounding error, measured against higher precision
_COPY_BYTES: Final = 2 * 2**30  # most memory for the weights in higher precision
_MIXED: Final = 0.1  # of an output's range over windows
_SHARE: Final = 1e-3  # of an output's own value: its tolerance on later pictures
_GROWTH: Final = 100  # times the rounding error that the check measured for an output: its tolerance on later pictures
_USUAL: Final = 100  # times the median of a model's outputs: larger ones do not raise the others' tolerance
_PLACES: Final = (0, 4, 5, 8)  # of three by three windows: two corners, the centre, the right edge


@dataclass(frozen=True)
class Tolerance:
    """By how much outputs may differ: `share` of their largest value. own: number of the model's own outputs.

    The other outputs are sums of layers' channels, which may be much larger or smaller, and may be small differences of
    large activations. rounding: float64 [own], the measured rounding error of each of the model's own outputs; None if
    each is compared with the largest value only.
    """

    share: float
    own: int
    rounding: Tensor | None = None

    def holds(self, found: Tensor, expected: Tensor) -> bool:
        """Whether outputs [windows, …] are as expected. A value that is not finite must be equal in both."""
        if found.shape != expected.shape:
            return False
        if any(_error(*both) > self.share for both in zip(self.parts(found), self.parts(expected), strict=True)):
            return False
        return self.rounding is None or self._each_holds(found, expected, self.rounding)

    def _each_holds(self, found: Tensor, expected: Tensor, rounding: Tensor) -> bool:
        """Whether each output is as expected, compared with its own size: small outputs may be next to large ones."""
        eps = torch.finfo(expected.dtype).eps
        found, expected = (self.parts(outputs)[0].double() for outputs in (found, expected))
        if rounding.numel() != expected.shape[1]:
            return True  # a model whose number of outputs varies
        sizes = expected.abs()
        some = sizes[expected.isfinite() & (sizes > 0)]
        if not some.numel():
            return True
        # An output near zero, where large terms cancel, has the rounding of these terms, as the others have.
        usual = min(float(some.max()), _USUAL * float(some.median()))
        allowed = torch.maximum(_SHARE * sizes, _GROWTH * rounding.to(expected.device)).clamp(min=10 * eps * usual)
        return bool(((found - expected).abs() <= allowed)[expected.isfinite()].all())

    def parts(self, outputs: Tensor) -> list[Tensor]:
        """The model's own outputs and each layer's sums separately: [windows, …]."""
        outputs = outputs.reshape(len(outputs), -1)
        return [part for part in (outputs[:, : self.own], outputs[:, self.own :]) if part.numel()]


@dataclass(frozen=True)
class _Run:
    """Outputs of a few windows. clear: without a window. expected: by whole passes. found: by following."""

    clear: Tensor
    expected: Tensor
    found: Tensor
    own: int

    @property
    def agrees(self) -> bool:
        """Whether the outputs differ by rounding only, and by far less than the windows change them."""
        if not Tolerance(_ROUNDING[self.expected.dtype], self.own).holds(self.found, self.expected):
            return False
        parts = Tolerance(0, self.own).parts
        return all(
            _columns_agree(*three)
            for three in zip(parts(self.clear), parts(self.expected), parts(self.found), strict=True)
        )

    @property
    def rounding(self) -> Tensor:
        """Difference of each of the model's own outputs, at least its last digit: float64 [own]."""
        own = Tolerance(0, self.own).parts
        found, expected = own(self.found)[0].double(), own(self.expected)[0].double()
        last_digit = torch.finfo(self.expected.dtype).eps * expected.abs().nan_to_num(0, 0, 0).amax(0)
        return torch.maximum((found - expected).abs().nan_to_num(0, 0, 0).amax(0), last_digit)


def _columns_agree(clear: Tensor, expected: Tensor, found: Tensor) -> bool:
    """Whether each output differs by far less than the windows change it.

    A small output may be wrong by far less than the rounding of a large one next to it.
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
    """Run a few windows of noise both ways, and return the tolerance for outputs.

    The outputs must agree within rounding, and within a hundredth of what the windows change. If rounding is too large
    for that, as in half precision, copies in higher precision must agree. Whole passes run one window at a time, since
    in some models the pictures of a batch influence each other.
    module: that the network follows. picture: [channels, height, width]. layers: as for `IncrementalNetwork`.

    Raises
    ------
    UntraceableError
        The outputs do not agree.
    """
    name = type(module).__name__
    colour = _noise(picture)
    plain = _run(network, module, picture, colour, layers)
    share = _ROUNDING.get(plain.expected.dtype)
    if share is None:
        raise UntraceableError(f"{name} gives {plain.expected.dtype}")
    if not plain.expected.isfinite().any():
        raise UntraceableError(f"{name} gives no finite numbers to compare with")
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
    """The same with a copy of the module in the picture's precision; None if it cannot be copied.

    colour: the one that the module itself was given, in that precision.
    """
    if picture.element_size() * sum(parameter.numel() for parameter in module.parameters()) > _COPY_BYTES:
        return None
    precise = private_copy(module)
    for part in precise.modules():  # `precise.to(dtype)` would change shared parameters
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
    """The model's outputs for some windows of one colour, one window in each pass: [windows, …]."""
    cover = constant_cover(colour, grid.window)
    origins = torch.from_numpy(grid.origins()[positions]).to(picture.device)
    with torch.inference_mode():
        return torch.cat([module(covered(picture, one, cover(one)).contiguous()) for one in origins[:, None]])


def mixes_pictures(module: nn.Module, picture: Tensor) -> bool:
    """Whether a model's output for a picture depends on the others in the batch (as batch norm in training mode does).

    picture: [channels, height, width]. Windows of noise in it are run together, and each in its own pass.
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
    allowed = torch.maximum(_MIXED * (one.amax(0) - one.amin(0)), rounding)  # each output is compared with its own size
    return bool(((several - one).abs().amax(0) > allowed).any())


def _converted(value: Any, dtype: torch.dtype) -> Any:
    """A parameter or buffer in another precision, if it has floating-point numbers."""
    if value is None or not value.is_floating_point():
        return value
    converted = value.detach().to(dtype)
    return nn.Parameter(converted, requires_grad=False) if isinstance(value, nn.Parameter) else converted


def _grid(picture: Tensor) -> WindowGrid:
    """Three by three windows of a fifth of the picture: at the edges, and a little off the centre."""
    axes = []
    for length in picture.shape[1:]:
        window = max(round(length / 5), 1)
        axes.append((window, (0, (length - window) * 4 // 9, length - window)))
    (height, y), (width, x) = axes
    return WindowGrid((height, width), y, x)


def _noise(picture: Tensor) -> Tensor:
    """A random colour in the range of the picture's values: [channels, 1, 1]."""
    reach = float(picture.abs().max()) or 1.0
    random = torch.Generator().manual_seed(0)
    colour = (2 * torch.rand(len(picture), 1, 1, generator=random, dtype=torch.float64) - 1) * reach
    return colour.to(picture.device, picture.dtype)


def _largest_error(found: Tensor, expected: Tensor, own: int) -> float:
    parts = Tolerance(0, own).parts
    return max(_error(*both) for both in zip(parts(found), parts(expected), strict=True))


def _error(found: Tensor, expected: Tensor) -> float:
    """Largest difference ÷ largest expected value; infinite if one value is finite and the other is not."""
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return float("inf")
    if not finite.any():
        return 0.0
    difference = (found[finite].double() - expected[finite].double()).abs().max()
    return float(difference / expected[finite].double().abs().max().clamp(min=torch.finfo(torch.float32).tiny))
