"""A model prepared for occlusion: followed through its layers, or run by whole passes if following would be wrong."""

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
    """Runs a module's windows by following if that gives the right outputs, otherwise by whole passes.

    module: [batch, channels, height, width] → one tensor [batch, …]; it is not changed. layers: names of modules that
    give maps; their channels' sums over space are appended to the outputs.
    picture: [channels, height, width], on which the followed network is compared with the module.
    reason: why the module is run by whole passes, in words; None while it is followed. There is also a warning. If
    following was wrong on one picture, it is tried once more on the next.
    passes: multiplications done since it was last set to zero, in whole passes.
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
        """Make the followed network and compare it with the module; if they differ, use whole passes."""
        # so that a model that draws random numbers draws the same ones as without this trial
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
                with suppress(Exception):  # an error of the module itself is raised by its first whole pass
                    self._whole_batch = 1 if mixes_pictures(self._whole, picture) else None

    def renew(self, picture: Tensor) -> None:
        """Try once more to follow the module after following was wrong on one picture (which had NaN, for example)."""
        if self._network is None and self._can_renew and bool(picture.isfinite().all()):
            self._can_renew = False
            self._prepare(picture)

    @property
    def network(self) -> IncrementalNetwork | None:
        """The network that follows the module; None if the module is run by whole passes."""
        return self._network

    def forget_picture(self) -> None:
        """Free what is kept of the last picture."""
        if self._network:
            self._network.forget_picture()

    @property
    def passes(self) -> float:
        """Multiplications since it was set to zero, in whole passes."""
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

        One window of each picture is also run by a whole pass. If it differs, or following fails, all windows are run
        by whole passes and yielded again: the last output that is yielded for a window counts.
        whole_batch: most windows in a whole pass; None chooses a number that is fast, or 1 if the pictures of a batch
        influence each other.
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
        """A function that runs any of the grid's windows, as that of `IncrementalNetwork.sampler`."""
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
        """The network's outputs; one window of the first batch is compared with a whole pass."""
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
