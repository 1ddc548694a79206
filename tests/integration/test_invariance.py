"""Invariance the whole way: submitted over HTTP and from the command line, watched, downloaded."""

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from occluscope.client import ApiError, Client
from service.running.stack import Stack
from tests.conftest import encode
from tests.parts import COMMAND


def test_several_pictures_over_http(client: Client, photographs: dict[str, Image.Image]) -> None:
    images = [client.upload(encode(photographs[name])).id for name in ("coffee", "chelsea", "rocket")]
    families = ["rotate", {"family": "brightness", "range": [0.5, 1.5], "steps": 3}]
    job = client.wait(client.submit("invariance", "efficientnet_lite0", images, {"families": families}).id)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.progress.total == 3 * (1 + 35 + 2) + 1
    results = client.results(job.id)
    found = {(one.name, str(one.variant), one.image): one for one in results.artifacts}
    assert {name for name, _, _ in found} == {
        "curves", "mean_curves", "augmentations", "layers", "unit_variance", "unit_firing",
    }  # fmt: skip
    curves = found["curves", "rotate", images[0]]
    content = json.loads(client.download(curves, "json"))
    assert content["axis"]["values"] == list(range(0, 360, 10))
    assert content["series"][0]["name"] == "p(espresso)"
    assert content["series"][0]["values"][0] == pytest.approx(0.957, abs=1e-3)
    assert len(content["strip"]["places"]) == 9
    assert client.download(curves, "csv").startswith(b'"turn, counter-clockwise",p(espresso)')
    picture = client.download(curves, "png", size=800)
    assert picture.startswith(b"\x89PNG")
    mean = json.loads(client.download(found["mean_curves", "rotate", None], "json"))
    assert mean["series"][0]["low"] is not None
    weakest = json.loads(client.download(found["augmentations", "", None], "json"))["rows"]
    assert weakest[0][0] == "rotate"
    assert weakest[0][-1].startswith("v2.RandomRotation(")
    matrix = found["unit_variance", "rotate", None]
    assert matrix.formats == ["png", "npy", "json", "csv"]
    assert matrix.shape == [3, 1280]
    orders = {
        str(one.variant): one.value for one in results.metrics if one.name == "symmetry_order" and one.image is None
    }
    assert orders["rotate"] == 1
    assert np.isfinite([one.value for one in results.metrics]).all()


def test_from_the_command_line(stack: Stack, photographs: dict[str, Image.Image], tmp_path: Path) -> None:
    """One picture; the folder tells itself in a page whose links all lead somewhere."""
    photographs["coffee"].save(tmp_path / "coffee cup.png")
    words = ["submit", "invariance", "--image", "coffee cup.png", "--param", "families=flip", "--output", "out"]
    environment = {**os.environ, "OCCLUSCOPE_URL": stack.url, "COLUMNS": "200"}
    done = subprocess.run([COMMAND, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "index.html" in done.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    links = [unquote(link) for link in re.findall(r'(?:src|href)="([^#"]+)"', page)]
    assert "coffee cup-curves-flip.png" in links
    assert "augmentations.csv" in links
    assert not [link for link in links if not (tmp_path / "out" / link).is_file()]


def test_a_mistake_is_named(client: Client, photographs: dict[str, Image.Image]) -> None:
    image = client.upload(encode(photographs["coffee"])).id
    with pytest.raises(ApiError) as caught:
        client.submit(
            "invariance", "efficientnet_lite0", [image], {"families": [{"family": "rotate", "range": [9, 1]}]}
        )
    assert [error.path for error in caught.value.errors] == ["params.families.0"]
