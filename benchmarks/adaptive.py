"""The approximate map, side by side with the exact one and with Captum: ``python -m benchmarks.adaptive``.

One process, contenders in turn, medians, ratios; EfficientNet-Lite0 with trained weights, six real pictures, window 32,
stride 8.
Beside each speed stands how like the exact map it is (SSIM of the probability map, window 7), its true root mean square
error and the one it estimated, both as shares of the map's range.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from captum.attr import Occlusion
from PIL import Image
from skimage import data
from skimage.metrics import structural_similarity
from sklearn.datasets import load_sample_image

from benchmarks.occlusion import CAPTUM_BATCHES, RESULTS, seconds
from benchmarks.writing import write
from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome
from occluscope.analyses.gathering import Gathered
from occluscope.models import card
from occluscope.models.loading import LoadedModel, load
from occluscope.pictures.preparation import Picture

MODEL: Final = "efficientnet_lite0"
WINDOW: Final = 32
STRIDE: Final = 8
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "adaptive, tolerance 0.08 (default)": {"method": "adaptive"},
    "adaptive, tolerance 0.05": {"method": "adaptive", "tolerance": 0.05},
    "adaptive, tolerance 0.03": {"method": "adaptive", "tolerance": 0.03},
}


def pictures() -> dict[str, Image.Image]:
    """The six real pictures that ship inside packages."""
    found = {name: getattr(data, name)() for name in ("coffee", "camera", "chelsea", "rocket")}
    found |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: Image.fromarray(pixels).convert("RGB") for name, pixels in found.items()}


def analyse(model: LoadedModel, picture: Picture, **params: Any) -> Outcome:
    """Our analysis as a worker runs it, without the curves that peers do not have."""
    spec = analyses.spec("occlusion")
    parsed = spec.parse({"window": WINDOW, "stride": STRIDE, "insertion_deletion": False, **params})
    (unit,) = spec.plan(parsed, model.card, [ImageRef("picture", 1, 1)], {})
    return analyses.compute("occlusion")(model, [picture], parsed, unit, Gathered())


def captum(model: LoadedModel, picture: Picture, batch: int) -> None:
    """Captum's map of the same windows."""
    x = model.tensor(picture.rgb)[None].contiguous()
    module = model.module
    target = int(module(x).argmax())
    with torch.inference_mode():
        Occlusion(lambda batch: module(batch).softmax(dim=1)).attribute(
            x, sliding_window_shapes=(3, WINDOW, WINDOW), strides=(3, STRIDE, STRIDE), baselines=0, target=target,
            perturbations_per_eval=batch,
        )  # fmt: skip


def probability_map(outcome: Outcome) -> np.ndarray:
    return next(np.asarray(one.result.pack().array) for one in outcome.results if one.name == "probability_map")


def quality(exact: Outcome, approximate: Outcome) -> dict[str, float]:
    """How near the approximate map is, and how near it says it is."""
    one, other = probability_map(approximate), probability_map(exact)
    extent = float(np.ptp(other))
    metrics = {metric.name: metric.value for metric in approximate.metrics}
    ssim = structural_similarity(one, other, win_size=7, data_range=extent)  # type: ignore[no-untyped-call]
    return {
        "ssim": float(ssim),
        "error": float(np.sqrt(np.mean((one - other) ** 2))) / extent,
        "estimated_error": metrics["estimated_error"] / extent,
        "windows_run": metrics["windows_run"],
    }


def measure(model: LoadedModel, name: str, picture: Picture, rounds: int) -> list[dict[str, Any]]:
    """Rows for one picture."""
    first = {batch: seconds(lambda batch=batch: captum(model, picture, batch)) for batch in CAPTUM_BATCHES}  # type: ignore[misc]
    best = min(first, key=first.__getitem__)
    contenders: dict[str, Callable[[], Any]] = {
        "captum": lambda: captum(model, picture, best),
        "exact": lambda: analyse(model, picture),
        **{
            setting: lambda params=params: analyse(model, picture, **params)  # type: ignore[misc]
            for setting, params in SETTINGS.items()
        },
    }
    exact = analyse(model, picture)
    nearness = {setting: quality(exact, analyse(model, picture, **params)) for setting, params in SETTINGS.items()}
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender, run in contenders.items():
            times[contender].append(seconds(run))

    def ratio(of: str, to: str) -> float:
        return statistics.median(a / b for a, b in zip(times[of], times[to], strict=True))

    return [
        {
            "picture": name,
            "setting": setting,
            "over_captum_best": ratio("captum", setting),
            "over_exact": ratio("exact", setting),
            **nearness[setting],
        }
        for setting in SETTINGS
    ]


COLUMNS: Final = {
    "setting": "setting", "picture": "picture", "over_captum_best": "× Captum, best", "over_exact": "× exact",
    "ssim": "SSIM", "error": "error", "estimated_error": "estimated error", "windows_run": "windows run of 625",
}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows and their means by setting, as Markdown."""
    means = [
        {
            "setting": setting,
            "picture": "mean",
            **{
                key: statistics.mean(row[key] for row in rows if row["setting"] == setting) for key in list(COLUMNS)[2:]
            },
        }
        for setting in SETTINGS
    ]
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * len(COLUMNS)]
    for row in sorted([*rows, *means], key=lambda row: list(SETTINGS).index(row["setting"])):
        lines.append("| " + " | ".join(_cell(key, row[key]) for key in COLUMNS) + " |")  # noqa: PERF401 - reads better
    return "\n".join(lines)


def _cell(key: str, value: Any) -> str:
    if key == "windows_run":
        return f"{value:.0f}"
    if isinstance(value, float):
        return f"{value:.2f}" if key.startswith("over") else f"{value:.3f}"
    return str(value)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "adaptive.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    model = load(card(MODEL), torch.device("cpu"))
    rows: list[dict[str, Any]] = []
    for name, image in pictures().items():
        rows += measure(model, name, model.card.preparation.prepare(image), arguments.rounds)
    print(table(rows))
    write(arguments.output, rows)


if __name__ == "__main__":
    main()
