"""The main job from end to end: real pictures through the running service, its answers in ``demo-output/``."""

import argparse
import io
import sys
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from skimage import data

from occluscope.client import Client, Job, Results
from service.cli.asking import wait_with_progress
from service.stack import StackError, running_stack

PICTURES = ("coffee", "camera", "chelsea")  # scikit-image carries them in its wheel
MODEL = "efficientnet_lite0"
PARAMS = {"window": 32, "stride": 8}

console = Console(highlight=False)


def main() -> int:
    """Start the service, run the job, write and tell what it gave, stop the service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--state-dir", type=Path, default=Path(".occluscope/demo"))
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        console.print("Starting broker, database, API and a worker …")
        with running_stack(arguments.state_dir) as stack, Client(stack.url) as client:
            console.print(f"Running at {stack.url} after {time.monotonic() - start:.0f} s.")
            run(client, arguments.output)
    except StackError as error:
        console.print(error, style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything is stopped.")
        return 130
    console.print(f"Stopped. {time.monotonic() - start:.0f} s in all. Look into [bold]{arguments.output}[/bold].")
    return 0


def run(client: Client, output: Path) -> None:
    """Upload, submit, wait, download, tell."""
    images = {client.upload(picture_bytes(name)).id: name for name in PICTURES}
    job = client.submit("occlusion", MODEL, list(images), PARAMS)
    console.print(f"Job {job.id}: occlusion of {', '.join(PICTURES)} with {MODEL}, window 32, stride 8.")
    job = wait_with_progress(client, job.id)
    if job.state != "succeeded":
        raise StackError(f"the job ended {job.state}: {job.error}")
    written = client.save_results(job.id, output, images)
    results = client.results(job.id)
    for image, name in images.items():
        tell(client, results, image, name)
    console.print(f"\n{len(written)} files in {output}, such as {PICTURES[0]}-pixel_map-overlay.png.")
    tell_speed(job, results)


def tell(client: Client, results: Results, image: str, name: str) -> None:
    """Print a picture's top classes and the place that its prediction depends on most."""
    metrics = {metric.name: metric.value for metric in results.metrics if metric.image == image}
    table = next(
        artifact for artifact in results.artifacts if artifact.image == image and artifact.name == "top_classes"
    )
    rows = client.download(table, "csv").decode().splitlines()[1:4]
    classes = [(label, float(probability)) for _, label, probability in (row.split(",") for row in rows)]
    shown = ", ".join(f"{label} {probability:.3f}" for label, probability in classes)
    console.print(f"\n[bold]{name}[/bold]: {shown}")
    console.print(
        f"  depends most on what is around x = {metrics['max_drop_x']:.0f}, y = {metrics['max_drop_y']:.0f} "
        f"of the model's input: covering it takes p({classes[0][0]}) from {metrics['base_probability']:.3f} "
        f"to {metrics['base_probability'] - metrics['max_drop']:.3f}"
    )


def tell_speed(job: Job, results: Results) -> None:
    """Print how many windows a second the job took from its first to its last."""
    windows = sum(metric.value for metric in results.metrics if metric.name == "windows")
    if job.started_at and job.finished_at:
        seconds = (job.finished_at - job.started_at).total_seconds()
        console.print(f"{windows:.0f} windows in {seconds:.1f} s.")


def picture_bytes(name: str) -> bytes:
    """One of scikit-image's pictures as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(getattr(data, name)()).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
