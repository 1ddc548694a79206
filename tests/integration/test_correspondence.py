"""Correspondence the whole way: a unit a picture on the real stack, combined by a unit of its own; and its commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from occluscope.client import ApiError, Client
from service.running.stack import Stack
from tests.conftest import encode
from tests.unit.analyses.test_correspondence import COCO, FACE, faces

COMMAND = Path(sys.executable).with_name("occluscope")


def test_a_job_over_pictures_is_combined(client: Client) -> None:
    images = [client.upload(encode(face)).id for face in faces(3)]
    params = {"parts": [FACE] * 3, "layers": [0.5, "last"], "random_draws": 2, "permutations": 99}
    job = client.wait(client.submit("correspondence", "efficientnet_lite0", images, params).id)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.progress.done == job.progress.total == 3 * (1 + 3 * 3) + 1
    results = client.results(job.id)
    assert [artifact.image for artifact in results.artifacts if artifact.name == "boxes"] == images
    comparisons = [artifact for artifact in results.artifacts if artifact.name == "comparison"]
    assert len(comparisons) == 2
    for artifact in comparisons:
        assert client.download(artifact, "png").startswith(b"\x89PNG")
        found = json.loads(client.download(artifact, "json"))
        assert found["axis"]["labels"] == list(FACE)
    (table,) = (artifact for artifact in results.artifacts if artifact.name == "correspondence")
    rows = client.download(table, "csv").decode().splitlines()
    assert len(rows) == 1 + 2 * 3
    deltas = [metric.value for metric in results.metrics if metric.name == "delta"]
    assert len(deltas) == 6
    assert np.isfinite(deltas).all()


def test_bad_parts_leave_nothing(client: Client) -> None:
    images = [client.upload(encode(face)).id for face in faces(2)]
    before = [job.id for job in client.jobs(analysis="correspondence")]
    for params, path in (({}, "params.parts"), ({"parts": [FACE]}, "params.parts"), ({"parts": 3}, "params.parts")):
        with pytest.raises(ApiError) as caught:
            client.submit("correspondence", "efficientnet_lite0", images, params)
        assert [error.path for error in caught.value.errors] == [path]
    assert [job.id for job in client.jobs(analysis="correspondence")] == before


def test_from_annotations_to_a_job_by_commands(stack: Stack, tmp_path: Path) -> None:
    for name, face in zip(("a.jpg", "b.jpg"), faces(2), strict=True):
        (tmp_path / name).write_bytes(encode(face))
    coco = {**COCO, "images": [{**picture, "width": 250, "height": 250} for picture in COCO["images"]]}
    boxes = [{"image_id": one, "category_id": 2, "bbox": [50, 60, 60, 50]} for one in (7, 8)]
    (tmp_path / "coco.json").write_text(json.dumps({**coco, "annotations": boxes}))

    def run(*words: str) -> str:
        environment = {**os.environ, "OCCLUSCOPE_URL": stack.url, "COLUMNS": "200"}
        done = subprocess.run(
            [COMMAND, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pictures = ("--image", "a.jpg", "--image", "b.jpg")
    (tmp_path / "parts.json").write_text(run("parts", "from-coco", "coco.json", *pictures))
    assert json.loads((tmp_path / "parts.json").read_text()) == [{"eye": [60, 50, 110, 110]}] * 2
    words = ("--param", "parts=@parts.json", "--param", "layers=[0.6]", "--param", "random_draws=2")
    printed = run("submit", "correspondence", *pictures, *words, "--wait", "--output", "out")
    assert "delta_random" in printed
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"a-boxes.png", "b-boxes.png", "correspondence.csv", "metrics.json"} <= written
