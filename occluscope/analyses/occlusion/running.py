"""occlusion: runs the model on changed copies of one picture."""

import time
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.analyses.contract import Report
from occluscope.analyses.occlusion import baselines, quality
from occluscope.analyses.occlusion.experiment import Experiment
from occluscope.analyses.occlusion.outcome import preview
from occluscope.analyses.occlusion.responses import CurveScores, Response, Responses
from occluscope.analyses.occlusion.scanning import Scan, Scanner, precision_windows
from occluscope.analyses.occlusion.spec import CURVE_STEPS, Share
from occluscope.analyses.occlusion.target_maps import TargetMap, target_maps
from occluscope.analyses.occlusion.targets import columns
from occluscope.engine import naive
from occluscope.engine.covers import Cover
from occluscope.engine.following import Followed
from occluscope.engine.layers import WithSums
from occluscope.models.loading import LoadedModel
from occluscope.results import NamedResult
from occluscope.windows import WindowGrid


class Runner:
    """One picture in front of a model, in the precision that the parameters ask for.

    report: called after every batch with the steps done so far, over all scans and curves.
    """

    def __init__(self, model: LoadedModel, experiment: Experiment, report: Report) -> None:
        self._full, self._experiment, self._report = model, experiment, report
        self._model = model.half if experiment.params.precision == "half" else model
        self._clear = self._model.tensor(experiment.picture.rgb)
        self._module = _with_sums(self._model, experiment)
        self._steps = 0  # of the scans and curves that have ended

    @cached_property
    def base(self) -> Tensor:
        """All scores of the picture without occlusion: float64 [columns]."""
        return self._scores(self._clear[None])[0].cpu()

    def responses(self) -> Responses:
        """All windows, and the curves of all maps that have them."""
        return Responses(self.base, [self._response(number) for number in range(len(self._experiment.params.window))])

    def share(self, share: Share) -> list[Response]:
        """The windows of a share of the rows: a response for each size of window, without curves."""
        found = []
        for number, size in enumerate(self._experiment.params.window):
            grid = self._experiment.grid(number)
            rows = share.rows(grid.shape[0])
            part = WindowGrid(size, tuple(grid.origins_y[row] for row in rows), grid.origins_x)
            found.append(Response(*self._scan(number, part, share)))
        return found

    def curves(self, one: TargetMap) -> CurveScores:
        """The target's score along deletion and insertion by its map."""
        per_pixel = one.grid.mean_per_pixel(one.drop, self._experiment.input_size)

        def score(copies: Tensor) -> Tensor:
            return self._scores(copies)[:, one.target.column]

        def run(start: Tensor, end: Tensor) -> np.ndarray:
            scores = quality.curve(score, start, end, per_pixel, self._at)
            self._steps += CURVE_STEPS + 1
            return scores

        deletion = run(self._clear, torch.zeros_like(self._clear))
        return {"deletion": deletion, "insertion": run(quality.blurred_start(self._clear), self._clear)}

    def _response(self, number: int) -> Response:
        experiment = self._experiment
        grid = experiment.grid(number)
        scan, seconds = self._scan(number, grid)
        half = experiment.params.precision == "half"
        error = precision_error(self._full, experiment, self.base, number, scan) if half else None
        curves = {
            place: self.curves(one)
            for place, one in enumerate(target_maps(experiment, self.base, number, grid, scan))
            if experiment.params.insertion_deletion and one.target.head.is_bounded
        }
        return Response(scan, seconds, error, curves)

    def _scan(self, number: int, grid: WindowGrid, share: Share | None = None) -> tuple[Scan, float]:
        """Run the windows of a grid; gives what they took in seconds too."""
        experiment, scanner = self._experiment, self._scanner
        cover = _cover(self._model, experiment, self._clear, number)
        start, scan = time.perf_counter(), None
        for scan in scanner.scan(experiment.params, grid, cover):
            self._report(self._steps + scan.windows_run, lambda scan=scan: self._preview(number, grid, scan, share))  # type: ignore[misc]
        assert scan is not None  # noqa: S101 - a grid has at least one window
        self._steps += len(grid)
        return scan, time.perf_counter() - start

    def _preview(self, number: int, grid: WindowGrid, scan: Scan, share: Share | None) -> list[NamedResult]:
        maps = target_maps(self._experiment, self.base, number, grid, scan)
        return preview(self._experiment, maps, share)

    @cached_property
    def _scanner(self) -> Scanner:
        experiment = self._experiment
        followed = experiment.followed(self.base)
        return Scanner(self._module, self._network, experiment.outputs, followed, self._clear, self._at)

    @property
    def _network(self) -> Followed | None:
        if self._experiment.params.method == "naive":
            return None
        return self._model.followed(tuple(self._experiment.outputs.layers))

    def _at(self, steps: int) -> None:
        """Report so many steps of the scan or curve that is running."""
        self._report(self._steps + steps)

    def _scores(self, copies: Tensor) -> Tensor:
        """All scores, by whole passes: float64 [batch, columns]."""
        with torch.inference_mode():
            return self._experiment.outputs.scores(self._module(copies))


def precision_error(model: LoadedModel, experiment: Experiment, base: Tensor, number: int, scan: Scan) -> np.ndarray:
    """Largest difference of a scan in half precision from full precision, over some windows: float64 [followed].

    model: in full precision. base: all scores without occlusion. number: of the size of window.
    """
    grid = experiment.grid(number)
    positions = precision_windows(len(grid))
    clear = model.tensor(experiment.picture.rgb)
    cover, module = _cover(model, experiment, clear, number), _with_sums(model, experiment)
    batches = naive.occluded_outputs(module, clear, grid, cover, positions=positions)
    scores = torch.cat([experiment.outputs.scores(outputs) for _, outputs in batches])
    full = scores[:, columns(experiment.followed(base))].cpu().numpy()
    return np.asarray(np.abs(scan.values[positions] - full).max(axis=0))


def _with_sums(model: LoadedModel, experiment: Experiment) -> nn.Module:
    """The network, with the sums of the observed layers' channels after its own outputs."""
    layers = tuple(experiment.outputs.layers)
    return WithSums(model.module, layers) if layers else model.module


def _cover(model: LoadedModel, experiment: Experiment, clear: Tensor, number: int) -> Cover:
    params = experiment.params
    return baselines.cover(model, experiment.picture, clear, params, params.window[number])
