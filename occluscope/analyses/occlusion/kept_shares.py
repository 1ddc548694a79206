"""occlusion: what the units of a split picture keep, and what is made of it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from occluscope.analyses.contract import FIRST, Part, Work
from occluscope.analyses.occlusion.scanning import Scan

Joined = tuple[Scan, float]  # all windows of one size, and the seconds that they took


@dataclass(frozen=True)
class Split:
    """What is known of a picture that was split.

    shares: each of the picture's. curves: by the numbers of window and target, what the unit of that map kept.
    """

    shares: Sequence[Part]
    curves: Mapping[tuple[int, int], Mapping[str, np.ndarray]]

    @classmethod
    def of(cls, work: Work) -> "Split":
        """What a unit of a later stage is made from, as its plan says."""
        payload = work.unit.payload
        curves = [work.before["curves"][place] for place in payload.get("curves", ())]
        return cls(
            [work.before[FIRST][place] for place in payload["shares"]],
            {(part.unit.payload["window"], part.unit.payload["target"]): part.kept for part in curves},
        )

    def joined(self, number: int) -> Joined:
        """The shares one below the other. number: which of the sizes of window."""
        return joined(self.shares, number)


def of_scan(number: int, scan: Scan, seconds: float) -> dict[str, np.ndarray]:
    """What was found with windows of one size. number: which of the sizes."""
    counts = np.array([scan.windows_run, scan.forward_equivalents, seconds, scan.followed])
    return {f"values {number}": scan.values, f"predicted {number}": scan.predicted, f"counts {number}": counts}


def joined(parts: Sequence[Part], number: int) -> Joined:
    """The shares of one picture, one below the other."""
    values = np.concatenate([part.kept[f"values {number}"] for part in parts])
    predicted = np.concatenate([part.kept[f"predicted {number}"] for part in parts])
    run, equivalents, seconds, followed = np.sum([part.kept[f"counts {number}"] for part in parts], axis=0)
    return Scan(values, predicted, int(run), None, float(equivalents), followed == len(parts)), float(seconds)
