"""occlusion: what the model answered, as it was found here or read from the shares of a split picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from occluscope.analyses.contract import FIRST, Part, Work
from occluscope.analyses.occlusion.scanning import Scan

CurveScores = Mapping[str, np.ndarray]  # of the target, along "deletion" and "insertion": float64 [CURVE_STEPS + 1]


@dataclass(frozen=True)
class Response:
    """What was found with windows of one size.

    seconds: how long the windows took. precision_error: largest difference from full precision, float64 [targets];
    None if the model ran in full precision. curves: by the map's place among `target_maps`.
    """

    scan: Scan
    seconds: float
    precision_error: np.ndarray | None = None
    curves: Mapping[int, CurveScores] = field(default_factory=dict)


@dataclass(frozen=True)
class Responses:
    """What was found for one picture.

    base: all scores without occlusion, float64 [columns]. sizes: a response for each size of window.
    """

    base: Tensor
    sizes: Sequence[Response]


@dataclass(frozen=True)
class Shares:
    """What the units of a split picture kept.

    parts: one for each share of the rows, in their order. curve_parts: one for each map whose curves were run.
    """

    parts: Sequence[Part]
    curve_parts: Sequence[Part]

    @classmethod
    def of(cls, work: Work) -> "Shares":
        """The parts that the plan gave to a unit of a later stage."""
        payload = work.unit.payload
        return cls(
            [work.before[FIRST][place] for place in payload["shares"]],
            [work.before["curves"][place] for place in payload.get("curves", ())],
        )

    @property
    def base(self) -> Tensor | None:
        """All scores without occlusion, float64 [columns]; None if a worker of an older version ran the shares."""
        base = self.parts[0].kept.get("base")
        return None if base is None else torch.from_numpy(base)

    def response(self, number: int) -> Response:
        """The shares' rows one below the other. number: of the size of window.

        Its curves are by the place of the target in the parameters.
        """
        values = np.concatenate([part.kept[f"values {number}"] for part in self.parts])
        predicted = np.concatenate([part.kept[f"predicted {number}"] for part in self.parts])
        run, equivalents, seconds, followed = np.sum([part.kept[f"counts {number}"] for part in self.parts], axis=0)
        scan = Scan(values, predicted, int(run), None, float(equivalents), followed == len(self.parts))
        return Response(scan, float(seconds), curves=self._curves(number))

    def _curves(self, number: int) -> dict[int, CurveScores]:
        of_maps = {(part.unit.payload["window"], part.unit.payload["target"]): part.kept for part in self.curve_parts}
        return {target: kept for (window, target), kept in of_maps.items() if window == number and kept}


def kept(base: Tensor, sizes: Sequence[Response]) -> dict[str, np.ndarray]:
    """What the unit of a share keeps, so that `Shares` can read it."""
    arrays = {"base": base.numpy()}
    for number, response in enumerate(sizes):
        scan = response.scan
        counts = np.array([scan.windows_run, scan.forward_equivalents, response.seconds, scan.followed])
        arrays |= {f"values {number}": scan.values, f"predicted {number}": scan.predicted, f"counts {number}": counts}
    return arrays
