"""`Occlusion`: Captum's ``Occlusion`` with the same arguments and numbers, and faster if the model can be followed."""

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

    Windows start at 0, s, 2s, … along every axis, and the last ones may be cut at the far edge, as in Captum. For
    pictures and a module in eval mode only what a window changes is computed (see `occluscope.engine.following`).
    Everything else is run by whole passes, with one warning that says why.

    >>> import occluscope  # doctest: +SKIP
    >>> occluscope.Occlusion(model).attribute(x, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), target=281)

    forward_func: a module in any mode, or a function: inputs and further arguments → outputs [samples, …], or outputs
    without an axis of samples: one number, or a tensor of any shape. A module is not changed.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        if not callable(forward_func):
            raise TypeError(f"forward_func must be a module or a function, not {type(forward_func).__name__}")
        self.forward_func = forward_func
        self._followed: Followed | None = None
        self._fingerprint: tuple[Any, ...] = ()  # of the model when it was prepared
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
        """Attribution of every input value: float32, in the shape of `inputs`; a tuple for a tuple.

        If the outputs of the target are not one for each sample, there is one attribution for each of them:
        [outputs, …], with 1 for a single number.

        inputs: [samples, …], or a tuple of such tensors. sliding_window_shapes: lengths along the axes after the
        samples'. strides: one number, or one for each of the window's axes; None for 1. baselines: a number, or a
        tensor that fits `inputs`; None for 0. If `inputs` is a tuple, these three are tuples with one entry for each.
        target: an index of outputs (a class, or a tuple of indices) for all samples, or a list or tensor with one for
        each. additional_forward_args: the model's arguments after its inputs; tensors with axes are repeated for every
        window of a pass. perturbations_per_eval: windows in a whole pass; must be 1 for a model whose outputs do not
        grow with its inputs. show_progress: on stderr.

        Raises
        ------
        WrongArgumentError
            An argument has another form than described here; the message names it. It is an `AssertionError`, as in
            Captum, and a `ValueError`.
        """
        call = Call.of(
            inputs, sliding_window_shapes, strides, baselines, target, additional_forward_args, perturbations_per_eval
        )
        model = self.forward_func
        now = fingerprint(model) if isinstance(model, nn.Module) else ()  # before the model runs, as at every call
        with torch.no_grad(), preserved(model) if isinstance(model, nn.Module) else nullcontext():
            base = scores.run(model, tuple(one.clone() for one in call.inputs), call.more, target)
            found = self._by_following(call, base, now, show_progress)
            if found is None:
                with _progress(show_progress, sum(map(len, call.windows))) as advance:
                    found = whole.attribute(model, call, base, advance)
        return found if call.several else found[0]

    def attribute_future(self, *_: Any, **__: Any) -> NoReturn:
        """Not implemented, as in Captum."""
        raise NotImplementedError("Occlusion has no attribute_future: use attribute")

    def _by_following(
        self, call: Call, base: Tensor, now: tuple[Any, ...], show_progress: bool
    ) -> tuple[Tensor, ...] | None:
        """The attribution by following; None if whole passes are needed."""
        model = self.forward_func
        reason = followed.why_not(model, call, base)
        if reason is not None:
            self._warn(f"{reason}; whole forward passes are used instead")
            return None
        assert isinstance(model, nn.Module)  # noqa: S101 - anything else has a reason
        if self._followed is None or self._fingerprint != now:
            with torch.random.fork_rng(
                _cuda_devices(call)
            ):  # so that whole passes draw the same random numbers as Captum's
                self._followed = Followed(model, call.inputs[0][0])
            self._fingerprint = now
        self._followed.renew(call.inputs[0][0])
        if self._followed.reason is not None:  # that were in a warning
            return None
        try:
            with _progress(show_progress, call.samples * len(call.windows[0])) as advance:
                return (followed.attribute(self._followed, call, base, advance),)
        except followed.CannotFollowError:
            return None

    def _warn(self, message: str) -> None:
        """Warn once for each reason."""
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
