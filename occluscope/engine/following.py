"""A model prepared for occlusion: followed through its layers, or where that would not be right, by whole passes."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.engine import naive
from occluscope.engine.checking import Tolerance, check, mixes_pictures
from occluscope.engine.covers import Cover, covered
from occluscope.engine.incremental import IncrementalNetwork
from occluscope.engine.layers import WithSums
from occluscope.engine.memory import is_out_of_memory
from occluscope.engine.mutation import UntraceableError
from occluscope.engine.preserving import private_copy
from occluscope.windows import WindowGrid


class Followed:
    """A module whose windows are run as fast as they can be run right.

    module: [batch, channels, height, width] → one tensor [batch, …]; it is left as it is. With `layers`, names of
    modules that give maps, their channels' sums over space are appended to its outputs.
    picture: [channels, height, width]; on it the followed network is held against the module.
    reason: why the module is run by whole passes, in words; none as long as it is followed. A warning says it. Where
    following turned out wrong on a picture, it is tried once more on the next.
    passes: windows run since it was last set to zero, as whole passes' worth of multiplications.
    """

    def __init__(self, module: nn.Module, picture: Tensor, layers: Sequence[str] = ()) -> None:
        self._whole: nn.Module = WithSums(module, layers) if layers else module
        self._name = type(module).__name__
        self._network: IncrementalNetwork | None = None
        self._tolerance = Tolerance(0, 0)
        self._extra_passes = 0.0
        self._whole_batch: int | None = None
        self.reason: str | None = None
        self._module, self._layers = module, tuple(layers)
        self._can_renew = True
        self._prepare(picture)

    def _prepare(self, picture: Tensor) -> None:
        """Make the followed network and hold it against the module; where they differ, settle for whole passes."""
        # A model that draws random numbers draws the same as if nothing had been tried.
        with torch.random.fork_rng([picture.device] if picture.is_cuda else []):
            try:
                copy = private_copy(self._module)
                network = IncrementalNetwork(copy, self._layers)
                network.prepare(picture)
                self._tolerance = check(network, copy, picture, self._layers)
                self._network, self.reason = network, None
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._can_renew = self._can_renew and not bool(picture.isfinite().all())
                self._give_up(error)
            if self.reason is not None:
                with suppress(Exception):  # what is wrong with the module itself, its first pass will say
                    self._whole_batch = 1 if mixes_pictures(self._whole, picture) else None

    def renew(self, picture: Tensor) -> None:
        """Follow the module again, once, where that turned out wrong on another picture (one that held NaN, say)."""
        if self._network is None and self._can_renew and bool(picture.isfinite().all()):
            self._can_renew = False
            self._prepare(picture)

    @property
    def network(self) -> IncrementalNetwork | None:
        """What follows the module; none where it is run by whole passes."""
        return self._network

    def forget_picture(self) -> None:
        """Let go what is kept of the last picture."""
        if self._network:
            self._network.forget_picture()

    @property
    def passes(self) -> float:
        """Whole passes' worth of multiplications since it was set to zero."""
        return self._extra_passes + (self._network.passes if self._network else 0.0)

    @passes.setter
    def passes(self, passes: float) -> None:
        self._extra_passes = passes
        if self._network:
            self._network.passes = 0.0

    def occluded(
        self,
        picture: Tensor,
        grid: WindowGrid,
        cover: Cover,
        batch_size: int | None = None,
        whole_batch: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Run the module with each window covered, as `IncrementalNetwork.occluded` does.

        Should following turn out wrong on the way (one window of each picture is run by a whole pass too), or fail,
        all windows are run by whole passes and yielded anew: what counts of a window is what was yielded last.
        whole_batch: most windows at once by whole passes; none: as many as do well, or one at a time where pictures of
        one batch influence each other.
        """
        self.renew(picture)
        if self._network:
            try:
                yield from self._checked(self._network, picture, grid, cover, batch_size)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._give_up(error)
            else:
                return
        most = whole_batch or self._whole_batch or batch_size
        for positions, outputs in naive.occluded_outputs(self._whole, picture, grid, cover, most):
            self._extra_passes += len(positions)
            yield positions, outputs

    def sampler(self, picture: Tensor, grid: WindowGrid, cover: Cover, margin: int | None) -> Callable[..., Tensor]:
        """A function that runs any of the grid's windows, as `IncrementalNetwork.sampler` gives it."""
        run_followed: Callable[..., Tensor] | None = None
        self.renew(picture)
        if self._network:
            try:
                run_followed = self._network.sampler(picture, grid, cover, margin)
                middle = np.array([len(grid) // 2])
                self._hold_against(picture, grid, cover, middle, run_followed(middle, exact=True))
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._give_up(error)

        def run(positions: np.ndarray, *, exact: bool = False) -> Tensor:
            if self._network and run_followed:
                try:
                    return run_followed(positions, exact=exact)
                except Exception as error:
                    if is_out_of_memory(error):
                        raise
                    self._give_up(error)
            self._extra_passes += len(positions)
            batches = naive.occluded_outputs(self._whole, picture, grid, cover, self._whole_batch, positions)
            return torch.cat([outputs for _, outputs in batches])

        return run

    def _checked(
        self, network: IncrementalNetwork, picture: Tensor, grid: WindowGrid, cover: Cover, batch_size: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The network's windows; one of the first batch is held against a whole pass."""
        for number, (positions, outputs) in enumerate(network.occluded(picture, grid, cover, batch_size)):
            if number == 0:
                place = len(positions) // 2
                self._hold_against(
                    picture, grid, cover, positions[place : place + 1].numpy(), outputs[place : place + 1]
                )
            yield positions, outputs

    def _hold_against(
        self, picture: Tensor, grid: WindowGrid, cover: Cover, positions: np.ndarray, outputs: Tensor
    ) -> None:
        origins = torch.from_numpy(grid.origins()[positions]).to(picture.device)
        with torch.inference_mode():
            expected = self._whole(covered(picture, origins, cover(origins)).contiguous())
        if not self._tolerance.holds(outputs, expected):
            raise UntraceableError(f"{self._name}, followed, gives other numbers than the model for a window")

    def _give_up(self, error: Exception) -> None:
        self._extra_passes += self._network.passes if self._network else 0.0
        self._network = None
        what = str(error) or type(error).__name__
        self.reason = what if isinstance(error, UntraceableError) else f"{self._name} cannot be followed: {what}"
        warnings.warn(f"{self.reason}; whole forward passes are used instead", stacklevel=3)
