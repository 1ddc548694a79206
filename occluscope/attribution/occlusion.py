"""`Occlusion`: takes what Captum's ``Occlusion`` takes, gives its numbers, sooner where the model can be followed."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from occluscope.attribution import followed, scores, whole
from occluscope.attribution.arguments import Call
from occluscope.engine.following import Followed
from occluscope.engine.preserving import fingerprint, preserved

Several = Tensor | tuple[Tensor, ...]


class Occlusion:
    """Occlusion (Zeiler & Fergus 2013): at each input value the mean drop of a score over the windows covering it.

        A(p) = mean of f(x) − f(x_w) over the windows w that cover p

    Windows stand at 0, s, 2s, … along every axis; the last ones may hang over the far edge and are cut there, as
    Captum's are. For pictures and a module in eval mode only what a window changes is computed (see
    `occluscope.engine.following`); anything else is run by whole passes, with one warning that says why.

    >>> import occluscope  # doctest: +SKIP
    >>> occluscope.Occlusion(model).attribute(x, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), target=281)

    forward_func: a module in any mode, or a function: inputs and further arguments → outputs [samples, …], or what is
    not told by sample: one number, or a tensor of a shape of its own. A module is left as it was.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        if not callable(forward_func):
            raise TypeError(f"forward_func must be a module or a function, not {type(forward_func).__name__}")
        self.forward_func = forward_func
        self._followed: Followed | None = None
        self._fingerprint: tuple[Any, ...] = ()  # of the model, as it was followed
        self._has_warned = False

    def attribute(  # noqa: PLR0917 - Captum's arguments, in Captum's order
        self,
        inputs: Several,
        sliding_window_shapes: tuple[int, ...] | tuple[tuple[int, ...], ...],
        strides: int | tuple[int, ...] | tuple[int | tuple[int, ...], ...] | None = None,
        baselines: float | Tensor | tuple[float | Tensor, ...] | None = None,
        target: int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None = None,
        additional_forward_args: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Any:
        """Attribution of every input value: float32, shaped as `inputs`, a tuple of them for a tuple.

        Where the outputs that target names are not one a sample, there is one attribution for each of them:
        [outputs, …], 1 for a single number.

        inputs: [samples, …], or a tuple of such. sliding_window_shapes: lengths along the axes behind the samples',
        for a tuple one each. strides: one number, or one for each of the window's axes, for a tuple one each; none is
        1. baselines: a number, or a tensor that fits `inputs`, for a tuple one each; none is 0. target: an index of
        outputs, for all samples or a list or tensor with one for each: a class, or a tuple of indices.
        additional_forward_args: what the model takes after its inputs; tensors with axes are repeated for every window
        of a pass. perturbations_per_eval: windows a whole pass; a model whose outputs do not grow with its inputs takes
        1. show_progress: on stderr.

        Raises
        ------
        WrongArgumentError
            An argument is of no form that is described here; the message names it. It is an `AssertionError`, as
            Captum's are, and a `ValueError`.
        """
        call = Call.of(
            inputs, sliding_window_shapes, strides, baselines, target, additional_forward_args, perturbations_per_eval
        )
        model = self.forward_func
        now = fingerprint(model) if isinstance(model, nn.Module) else ()  # before it runs, as every call finds it
        with torch.no_grad(), preserved(model) if isinstance(model, nn.Module) else nullcontext():
            base = scores.run(model, tuple(one.clone() for one in call.inputs), call.more, target)
            found = self._by_following(call, base, now, show_progress)
            if found is None:
                with _progress(show_progress, sum(map(len, call.windows))) as advance:
                    found = whole.attribute(model, call, base, advance)
        return found if call.several else found[0]

    def attribute_future(self, *_: Any, **__: Any) -> NoReturn:
        """Not there, as in Captum."""
        raise NotImplementedError("Occlusion has no attribute_future: use attribute")

    def _by_following(
        self, call: Call, base: Tensor, now: tuple[Any, ...], show_progress: bool
    ) -> tuple[Tensor, ...] | None:
        """None where it has to be by whole passes."""
        model = self.forward_func
        reason = followed.why_not(model, call, base)
        if reason is not None:
            self._warn(f"{reason}; whole forward passes are used instead")
            return None
        assert isinstance(model, nn.Module)  # noqa: S101 - anything else has a reason
        if self._followed is None or self._fingerprint != now:
            with torch.random.fork_rng(_cuda_devices(call)):  # whole passes draw the random numbers that Captum's do
                self._followed = Followed(model, call.inputs[0][0])
            self._fingerprint = now
        self._followed.renew(call.inputs[0][0])
        if self._followed.reason is not None:  # of which it has warned
            return None
        try:
            with _progress(show_progress, call.samples * len(call.windows[0])) as advance:
                return (followed.attribute(self._followed, call, base, advance),)
        except followed.CannotFollowError:
            return None

    def _warn(self, message: str) -> None:
        """Once."""
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(message, stacklevel=4)


def _cuda_devices(call: Call) -> list[torch.device]:
    return list({one.device for one in call.inputs if one.device.type == "cuda"})


@contextmanager
def _progress(shown: bool, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}: {task.percentage:.0f}%"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not shown) as progress:
        task = progress.add_task("Occlusion attribution", total=total)
        yield lambda windows: progress.advance(task, windows)
