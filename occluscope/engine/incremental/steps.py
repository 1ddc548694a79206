"""A network as a list of steps, and what every operation must be able to do."""

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
    """A value that is changed as a whole: no map, or one whose changes are not followed any more."""


@dataclass(frozen=True)
class Steady:
    """A value that no window changes."""


@dataclass(frozen=True)
class Planned:
    """How a step is run for a batch of windows, and what its value then is."""

    state: Field | Changed | Steady
    run: Run


class Operation(ABC):
    """What a step does."""

    @abstractmethod
    def whole(self, *values: Any) -> Any:
        """On whole values, as the network itself would."""

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:  # noqa: ARG002
        """How to do it on rectangles alone; none where only whole values will do.

        inputs: the steps whose values it takes; the planner knows their states and unoccluded values.
        """
        return None


@dataclass
class Step:
    """One step. inputs: indices of earlier steps; shape: of its unoccluded value, if that is a tensor."""

    name: str
    operation: Operation
    inputs: tuple[int, ...]
    shape: tuple[int, ...] | None = None


class Picture(Operation):
    """The network's input; always the first step."""

    def whole(self, *values: Any) -> Tensor:
        raise NotImplementedError("the picture is given, not computed")


@dataclass
class Constant(Operation):
    """A parameter or buffer."""

    value: Any

    def whole(self, *values: Any) -> Any:  # noqa: ARG002
        return self.value


@dataclass
class Native(Operation):
    """Anything that no rule knows: run as it is, on whole values. call: takes the inputs in order."""

    call: Callable[..., Any]

    def whole(self, *values: Any) -> Any:
        return self.call(*values)
