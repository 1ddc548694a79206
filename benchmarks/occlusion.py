"""Occlusion maps, side by side with peers: ``python -m benchmarks.occlusion``.

One process, contenders in turn, medians, ratios. Every contender covers the same windows of the same picture with the
same baseline in float32 and gives the drop of one class's score; how far the maps agree stands beside the ratio.
Captum is taken at its best ``perturbations_per_eval`` of 1, 8, 16 and 32 and at its default of 1. Which is its best,
how slow its default is and how slow MONAI, is tried first, by the window, on a few of the windows.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from captum.attr import Occlusion
from torch import Tensor, nn
from torchvision import models

from benchmarks.writing import write
from occluscope.engine.covers import constant_cover
from occluscope.engine.incremental import IncrementalNetwork
from occluscope.engine.naive import occluded_outputs
from occluscope.engine.ordering import in_order
from occluscope.models import card
from occluscope.models.loading import load
from occluscope.windows import WindowGrid

MODELS: Final = (
    "vgg16", "resnet18", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_lite0", "convnext_tiny", "vit_b_16",
)  # fmt: skip
WINDOWS: Final = ("32,16", "32,8", "16,8", "48,16")  # size, stride
CAPTUM_BATCHES: Final = (1, 8, 16, 32)
SIZE: Final = 224
TARGET: Final = 281
MEMORY_BATCH: Final = 16
RESULTS: Final = Path(__file__).parent / "results"


def made(name: str) -> nn.Module:
    """A model: trained weights where they are bundled, random ones elsewhere (they cost the same)."""
    torch.manual_seed(0)
    if name == "efficientnet_lite0":
        module = load(card(name), torch.device("cpu")).module
    else:
        module = models.get_model(name, weights=None)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
            if isinstance(layer, nn.Linear) and not layer.weight.any():  # a head that starts at zero tells nothing
                nn.init.normal_(layer.weight, std=0.02)
    return module.eval().requires_grad_(requires_grad=False)


class Case:
    """One model, one kind of window; each contender gives the drop of the target's logit for every window."""

    def __init__(self, name: str, window: int, stride: int) -> None:
        self.theirs = made(name).to(memory_format=torch.contiguous_format)
        self.ours = made(name).to(memory_format=torch.channels_last)
        self.window, self.stride = window, stride
        self.picture = torch.randn(3, SIZE, SIZE)
        self.grid = WindowGrid.over((SIZE, SIZE), (window, window), (stride, stride))
        self.cover = constant_cover(torch.zeros(3, 1, 1), (window, window))
        self.network = IncrementalNetwork(self.ours)

    def exact(self) -> np.ndarray:
        return self._drop(in_order(self.network.occluded(self.picture, self.grid, self.cover)))

    def plain(self) -> np.ndarray:
        return self._drop(in_order(occluded_outputs(self.ours, self.picture, self.grid, self.cover)))

    def captum(self, batch: int, stride: int | None = None) -> np.ndarray:
        with torch.inference_mode():
            attribution = Occlusion(self.theirs).attribute(
                self.picture[None], sliding_window_shapes=(3, self.window, self.window),
                strides=(3, stride or self.stride, stride or self.stride), baselines=0, target=TARGET,
                perturbations_per_eval=batch,
            )  # fmt: skip
        return np.asarray(attribution[0, 0])

    def captum_default_and_best(self) -> tuple[float, float, int]:
        """Seconds a window at the default batch and at the best one, and which that is, on a few of the windows."""
        stride = self.window  # the largest that Captum takes
        windows = math.ceil((SIZE - self.window) / stride + 1) ** 2
        self.captum(CAPTUM_BATCHES[-1], stride)  # warm up
        times = {}
        for batch in CAPTUM_BATCHES:
            start = time.perf_counter()
            self.captum(batch, stride)
            times[batch] = time.perf_counter() - start
        best = min(times, key=times.__getitem__)
        return times[1] / windows, times[best] / windows, best

    def monai(self) -> float:
        """Seconds a window. MONAI takes the overlap as a share of the window, and covers each window for itself."""
        from monai.visualize import OcclusionSensitivity

        box = [0, min(4 * self.window, SIZE), 0, min(2 * self.window, SIZE)]
        calls = 0

        def count(_module: nn.Module, inputs: Any) -> None:
            nonlocal calls
            calls += len(inputs[0])

        handle = self.theirs.register_forward_pre_hook(count)
        overlap = 1 - self.stride / self.window
        sensitivity = OcclusionSensitivity(
            self.theirs, mask_size=self.window, n_batch=16, overlap=overlap, mode=0.0, verbose=False
        )
        with torch.inference_mode():
            spent = seconds(lambda: sensitivity(self.picture[None], b_box=box))
        handle.remove()
        return spent / calls

    def _drop(self, outputs: Tensor) -> np.ndarray:
        with torch.inference_mode():
            base = self.ours(self.picture[None])[0, TARGET]
        return np.asarray(base - outputs[:, TARGET]).reshape(self.grid.shape)

    def fewer_operations(self) -> float:
        """Multiplications of whole passes over those of the exact map."""
        before = self.network.passes
        self.exact()
        return len(self.grid) / (self.network.passes - before)

    def agreement(self, drop: np.ndarray, pixel_map: np.ndarray) -> float:
        """Largest difference of our map per pixel and Captum's, relative to the largest unoccluded logit."""
        ours = self.grid.mean_per_pixel(drop, (SIZE, SIZE))
        with torch.inference_mode():
            largest = float(self.ours(self.picture[None]).abs().max())
        return float(np.abs(ours - pixel_map).max() / largest)


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(name: str, window: int, stride: int, rounds: int) -> dict[str, Any]:
    """Time every contender in turn; gives one row of the table."""
    case = Case(name, window, stride)
    default, fastest, best = case.captum_default_and_best()
    monai = case.monai()
    passes = case.fewer_operations()
    contenders: dict[str, Callable[[], Any]] = {
        "exact": case.exact,
        "captum_best": lambda: case.captum(best),
        "plain": case.plain,
    }
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    maps: dict[str, Any] = {}
    for _ in range(rounds):
        for contender, run in contenders.items():
            start = time.perf_counter()
            maps[contender] = run()
            times[contender].append(time.perf_counter() - start)
    median = {contender: statistics.median(values) for contender, values in times.items()}
    return {
        "model": name,
        "window": window,
        "stride": stride,
        "windows": len(case.grid),
        "exact_ms_per_window": 1000 * median["exact"] / len(case.grid),
        "over_captum_best": _ratio(times["captum_best"], times["exact"]),
        "captum_best_batch": best,
        "over_captum_default": default / fastest * _ratio(times["captum_best"], times["exact"]),
        "over_monai": monai / fastest * _ratio(times["captum_best"], times["exact"]),
        "over_plain": _ratio(times["plain"], times["exact"]),
        "fewer_operations": passes,
        "agreement": case.agreement(maps["exact"], maps["captum_best"]),
        "peak_memory_over_plain": peak_memory(name, window, stride, "exact")
        / peak_memory(name, window, stride, "plain"),
        "rounds": rounds,
    }


def _ratio(theirs: list[float], ours: list[float]) -> float:
    """Median of the ratios round by round: each pair ran one after the other."""
    return statistics.median(their / our for their, our in zip(theirs, ours, strict=True))


def peak_memory(name: str, window: int, stride: int, contender: str) -> int:
    """By how much a process grows that runs one contender with batches of `MEMORY_BATCH`, its model loaded; bytes."""
    words = [sys.executable, "-m", "benchmarks.occlusion", "--peak-memory", contender]
    done = subprocess.run(
        [*words, "--models", name, "--windows", f"{window},{stride}"], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def _run_for_memory(name: str, window: int, stride: int, contender: str) -> None:
    module = made(name).to(memory_format=torch.channels_last)
    grid = WindowGrid.over((SIZE, SIZE), (window, window), (stride, stride))
    grid = WindowGrid(grid.window, grid.origins_y[:4], grid.origins_x[:12])
    cover, picture = constant_cover(torch.zeros(3, 1, 1), grid.window), torch.randn(3, SIZE, SIZE)
    run = IncrementalNetwork(module).occluded if contender == "exact" else lambda *a: occluded_outputs(module, *a)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading the model
    for _ in run(picture, grid, cover, MEMORY_BATCH):
        pass
    print(_memory("VmHWM") - before)


def _memory(field: str) -> int:
    """A figure of this process's memory as Linux counts it; bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


COLUMNS: Final = {
    "model": "model", "window": "window", "stride": "stride", "exact_ms_per_window": "ms / window",
    "over_captum_best": "× Captum, best", "over_captum_default": "× Captum, default", "over_monai": "× MONAI",
    "over_plain": "× plain loop", "fewer_operations": "operations ÷", "peak_memory_over_plain": "memory ×",
    "agreement": "difference",
}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cell(column, row[column]) for column in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def _case(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["model"], row["window"], row["stride"]


def _cell(column: str, value: Any) -> str:
    if value is None:  # not measured
        return "–"
    if column == "agreement":
        return f"{value:.0e}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure, print the table, write the JSON; rows of cases that are not measured now stay in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--windows", nargs="+", default=WINDOWS, help="size,stride")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "occlusion.json")
    parser.add_argument("--peak-memory", choices=("exact", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    pairs = [tuple(int(number) for number in sizes.split(",")) for sizes in arguments.windows]
    cases: list[tuple[str, int, int]] = [
        (name, window, stride) for window, stride in pairs for name in arguments.models
    ]
    if arguments.peak_memory:
        _run_for_memory(*cases[0], arguments.peak_memory)
        return
    rows = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    print(table([]))
    for case in cases:
        row = measure(*case, arguments.rounds)
        rows = [*(known for known in rows if _case(known) != case), row]
        print(table([row]).splitlines()[-1], flush=True)
        write(arguments.output, rows)


if __name__ == "__main__":
    main()
