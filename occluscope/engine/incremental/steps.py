"""A network as a list of steps, and the interface of operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from occluscope.engine.incremental.batch import Batch
    from occluscope.engine.incremental.fields import Field
    from occluscope.engine.incremental.planning import Planner

Run = Callable[["Batch"], Any]


@dataclass(frozen=True)
class Changed:
    """A value that changes as a whole: it is not a map, or its changes are no longer followed."""


@dataclass(frozen=True)
class Steady:
    """A value that no window changes."""


@dataclass(frozen=True)
class Planned:
    """How a step runs for a batch of windows, and the state of its value."""

    state: Field | Changed | Steady
    run: Run


class Operation(ABC):
    """The operation of a step."""

    @abstractmethod
    def whole(self, *values: Any) -> Any:
        """Compute whole values, as the network itself does."""

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:  # noqa: ARG002
        """Plan the computation of rectangles; None if only whole values can be computed.

        inputs: indices of the steps whose values it takes. The planner has their states and unoccluded values.
        """
        return None


@dataclass
class Step:
    """One step. inputs: indices of earlier steps. shape: of its unoccluded value, if it is a tensor."""

    name: str
    operation: Operation
    inputs: tuple[int, ...]
    shape: tuple[int, ...] | None = None


class Input(Operation):
    """The network's input; always the first step."""

    def whole(self, *values: Any) -> Tensor:
        raise NotImplementedError("the input is not computed")


@dataclass
class Constant(Operation):
    """A parameter or buffer."""

    value: Any

    def whole(self, *values: Any) -> Any:  # noqa: ARG002
        return self.value


@dataclass
class Native(Operation):
    """A call without a rule, which runs unchanged on whole values. call: takes the inputs in order."""

    call: Callable[..., Any]

    def whole(self, *values: Any) -> Any:
        return self.call(*values)
