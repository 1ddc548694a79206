"""Invariance against the bare forward passes that it needs: ``python -m benchmarks.invariance``.

Five pictures, five families of 21 strengths, five layers. The bare passes run the same number of copies, made and
normalised beforehand, in the same batches, and read nothing of any layer. In turn in one process, picture by picture,
between two runs of the bare passes; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.adaptive import pictures
from benchmarks.occlusion import RESULTS, made
from benchmarks.writing import write
from occluscope import analyses
from occluscope.analyses.contract import ImageRef
from occluscope.analyses.gathering import Gathered
from occluscope.models import card
from occluscope.models.loading import LoadedModel

MODELS: Final = ("efficientnet_lite0", "mobilenet_v2", "resnet18", "resnet50")
PICTURES: Final = 5
BATCH: Final = 8
PARAMS: Final = {
    "families": [
        {"family": "translate_x", "range": [-60, 60], "steps": 21},
        {"family": "scale", "range": [1, 1.8], "steps": 21},
        {"family": "rotate", "range": [0, 350], "steps": 21},
        {"family": "shear", "range": [-40, 40], "steps": 21},
        {"family": "brightness", "range": [0.2, 1.8], "steps": 21},
    ],
    "layers": [0.0, 0.25, 0.5, 0.75, 1.0],
}
SPEC: Final = analyses.spec("invariance")


def seconds(run: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> dict[str, Any]:
    """One row: the analysis of each picture, and its passes, in turn."""
    model = LoadedModel(card(name), made(name).to(memory_format=torch.channels_last), torch.device("cpu"))
    params = SPEC.parse(PARAMS)
    images = list(pictures().values())[:PICTURES]
    units = SPEC.plan(params, model.card, [ImageRef(str(n), *image.size) for n, image in enumerate(images)], {})
    prepared = [model.card.preparation.prepare(image) for image in images]
    passes = units[0].steps
    batch = torch.randn(BATCH, 3, *model.card.input_size).to(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, passes, BATCH):
                model.module(batch[: min(BATCH, passes - start)])

    compute = analyses.compute("invariance")
    bare()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        for unit, picture in zip(units, prepared, strict=True):
            before = seconds(bare)
            own = seconds(lambda u=unit, p=picture: compute(model, [p], params, u, Gathered()))  # type: ignore[misc]
            times.append(((before + seconds(bare)) / 2, own))
    return {
        "model": name,
        "passes": passes * len(images),
        "ms_per_pass": 1000 * statistics.median(bare for bare, _ in times) / passes,
        "ms_per_copy": 1000 * statistics.median(own for _, own in times) / passes,
        "over_bare": statistics.median(own / bare for bare, own in times),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| model | copies | ms / bare pass | ms / copy | × bare passes |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['passes']} | {row['ms_per_pass']:.2f} | {row['ms_per_copy']:.2f} "
        f"| {row['over_bare']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--output", type=Path, default=RESULTS / "invariance.json")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.rounds) for name in arguments.models]
    print(table(rows))
    write(arguments.output, rows)


if __name__ == "__main__":
    main()
