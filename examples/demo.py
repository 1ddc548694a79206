"""Every analysis on real pictures through the running service, its answers in ``demo-output/index.html``."""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from rich.console import Console
from skimage import data

from occluscope.client import Client, Job, Results
from occluscope.report import Chapter, write_report
from service.cli.asking import wait_with_progress
from service.running.stack import StackError, running_stack

MODEL: Final = "efficientnet_lite0"
SIBLING: Final = "efficientnet_lite1"
FACES: Final = 12
# Where they are on each of scikit-image's faces (25 × 25, aligned), enlarged tenfold: top, left, bottom, right.
PARTS: Final = {"left eye": [60, 40, 110, 110], "right eye": [60, 140, 110, 210], "mouth": [170, 75, 220, 175]}

console = Console(highlight=False)


@dataclass(frozen=True)
class Story:
    """One job of the demo. tell: returns a paragraph about its results. shown: results that the page shows unfolded."""

    analysis: str
    models: Sequence[str]
    pictures: dict[str, Image.Image]
    params: dict[str, Any]
    tell: Callable[[Client, Job, Results], str]
    shown: Sequence[str]


def main() -> int:
    """Start the service, run the jobs, print and save their results, and stop the service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--state-dir", type=Path, default=Path(".occluscope/demo"))
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        console.print("Starting broker, database, API and a worker …")
        with running_stack(arguments.state_dir) as stack, Client(stack.url) as client:
            console.print(f"Running at {stack.url} after {time.monotonic() - start:.0f} s.")
            chapters = [run(client, story) for story in stories()]
            written = write_report(client, arguments.output, "What Occluscope sees", chapters)
    except StackError as error:
        console.print(error, style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything is stopped.")
        return 130
    console.print(f"\nStopped. {len(written)} files, {time.monotonic() - start:.0f} s in all.")
    console.print(f"Open {arguments.output / 'index.html'}.", style="bold", markup=False, soft_wrap=True)
    return 0


def stories() -> list[Story]:
    """The jobs in their order."""
    photographs = {name: photograph(name) for name in ("coffee", "camera", "chelsea")}
    return [
        Story(
            "occlusion", [MODEL], photographs, {"window": 32, "stride": 8}, tell_occlusion,
            ("pixel_map", "predicted_class_map", "insertion_deletion", "top_classes"),
        ),
        Story(
            "correspondence", [MODEL], faces(), {"parts": [PARTS] * FACES, "layers": [0.3, 0.6, "last"]},
            tell_correspondence, ("comparison", "correspondence"),
        ),
        Story(
            "invariance", [MODEL], photographs, {}, tell_invariance,
            ("mean_curves", "augmentations", "layers"),
        ),
        Story(
            "occlusion", [MODEL, SIBLING], {"coffee": photographs["coffee"]},
            {"window": 48, "stride": 16, "target": "espresso"}, tell_comparison,
            ("pixel_map", "insertion_deletion", "metrics_compared"),
        ),
    ]  # fmt: skip


def run(client: Client, story: Story) -> Chapter:
    """Upload the pictures, submit the job, wait for it, and print a paragraph about its results."""
    names = {client.upload(encoded(picture)).id: name for name, picture in story.pictures.items()}
    models = story.models if len(story.models) > 1 else story.models[0]
    job = client.submit(story.analysis, models, list(names), story.params)
    console.print(f"\n[bold]{story.analysis}[/bold] of {_count(len(names))} with {', '.join(story.models)}")
    job = wait_with_progress(client, job.id)
    if job.state != "succeeded":
        raise StackError(f"the job ended {job.state}: {job.error}")
    paragraph = story.tell(client, job, client.results(job.id))
    console.print(paragraph, markup=False)
    return Chapter(job.id, [paragraph], names, story.shown)


def tell_occlusion(client: Client, job: Job, results: Results) -> str:
    """For each picture the prediction and the position that it depends on most; and the time."""
    sentences = []
    height, width = client.model(job.model)["input_size"]
    for image in job.images:
        metrics = {metric.name: metric.value for metric in results.metrics if metric.image == image}
        label, probability = table(client, results, "top_classes", image)[0][1:3]
        left = metrics["base_probability"] - metrics["max_drop"]
        sentences.append(
            f"{label} {float(probability):.3f} depends most on what is around x = {metrics['max_drop_x']:.0f}, "
            f"y = {metrics['max_drop_y']:.0f} of the model's {width} × {height} pixels: covering it leaves {left:.3f}"
        )
    windows = sum(metric.value for metric in results.metrics if metric.name == "windows")
    seconds = sum(metric.value for metric in results.metrics if metric.name == "seconds")
    return f"{'. '.join(sentences)}. {windows:.0f} windows in {seconds:.1f} s of computing, every one exact."


def _count(pictures: int) -> str:
    return f"{pictures} pictures" if pictures > 1 else "1 picture"


def tell_correspondence(client: Client, _job: Job, results: Results) -> str:
    """The layer at which parts differ most from random boxes."""
    rows = table(client, results, "correspondence")
    layers = list(dict.fromkeys(row[1] for row in rows))
    gaps = {layer: np.mean([float(row[7]) - float(row[3]) for row in rows if row[1] == layer]) for layer in layers}
    layer = max(gaps, key=lambda name: gaps[name])
    parts = [
        f"{row[0]} {float(row[3]):.3f} (random boxes {float(row[7]):.3f}, p {float(row[9]):.4f})"
        for row in rows
        if row[1] == layer
    ]
    return (
        f"Eyes and mouth of {FACES} faces are covered, and random boxes of their sizes. At layer {layer} the features "
        f"change more alike than by chance: Hamming distance of {', '.join(parts)}."
    )


def tell_invariance(client: Client, _job: Job, results: Results) -> str:
    """The weakest family and the augmentation to train with."""
    weakest, *_, strongest = table(client, results, "augmentations")
    return (
        f"Weakest against {weakest[0]}: on average over the range {float(weakest[4]):.0%} of the probability is left. "
        f"To train against it: {weakest[-1]}. Strongest against {strongest[0]}: {float(strongest[4]):.0%}."
    )


def tell_comparison(_client: Client, _job: Job, results: Results) -> str:
    """Both models' probabilities and drops."""
    clauses = []
    for model in (MODEL, SIBLING):
        metrics = {metric.name: metric.value for metric in results.metrics if metric.model == model}
        clauses.append(
            f"{model}: p(espresso) {metrics['base_probability']:.3f}, largest drop {metrics['max_drop']:.3f}"
        )
    return f"The same question to two models, and the difference of their answers. {'; '.join(clauses)}."


def table(client: Client, results: Results, name: str, image: str | None = None) -> list[list[str]]:
    """The cells of a table below its header."""
    artifact = next(one for one in results.artifacts if one.name == name and one.image == image)
    rows: list[list[Any]] = json.loads(client.download(artifact, "json"))["rows"]
    return [[str(cell) for cell in row] for row in rows]


def faces() -> dict[str, Image.Image]:
    """Some of the faces in scikit-image's package."""
    enlarged = [
        Image.fromarray((face * 255).astype(np.uint8)).convert("RGB").resize((250, 250), Image.Resampling.BICUBIC)
        for face in data.lfw_subset()[:FACES]  # type: ignore[no-untyped-call]
    ]
    return {f"face-{number}": face for number, face in enumerate(enlarged, start=1)}


def photograph(name: str) -> Image.Image:
    """One of the pictures in scikit-image's package."""
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def encoded(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
