"""Any job may be given several models."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from occluscope.client import ApiError, Client, Job
from service.cli import app
from service.running.stack import Stack
from tests.conftest import encode

MODELS = ["efficientnet_lite0", "efficientnet_lite1"]


@pytest.fixture
def image(client: Client, photographs: dict[str, Image.Image]) -> str:
    return client.upload(encode(photographs["coffee"])).id


def run(client: Client, analysis: str, images: list[str], params: dict[str, object]) -> Job:
    job = client.wait(client.submit(analysis, MODELS, images, params).id)
    assert (job.state, job.error) == ("succeeded", None)
    assert (job.model, job.models) == (MODELS[0], MODELS)
    return job


def test_occlusion_of_two_models_gives_both_and_their_difference(client: Client, image: str, tmp_path: Path) -> None:
    """Their inputs have different sizes: the maps are compared where they lie on the picture."""
    params = {"window": 48, "stride": 32, "target": "espresso", "insertion_deletion": False}
    job = run(client, "occlusion", [image], params)
    results = client.results(job.id)
    maps = {one.model or str(one.variant): one for one in results.artifacts if one.name == "pixel_map"}
    assert list(maps) == [*MODELS, "efficientnet_lite0 − efficientnet_lite1"]
    first, difference = (
        np.array(json.loads(client.download(maps[of], "json"))["values"], dtype=float)
        for of in (MODELS[0], "efficientnet_lite0 − efficientnet_lite1")
    )
    assert first.shape == difference.shape == (224, 224)
    assert np.nanmax(np.abs(difference)) > 0.05
    overlay = client.download(maps["efficientnet_lite0 − efficientnet_lite1"], "png", overlay=1)
    assert overlay.startswith(b"\x89PNG")
    base = {metric.model: metric.value for metric in results.metrics if metric.name == "base_probability"}
    assert base == pytest.approx({MODELS[0]: 0.957, MODELS[1]: 0.529}, abs=2e-3)
    written = {path.name for path in client.save_results(job.id, tmp_path)}
    assert "image-1-pixel_map-efficientnet_lite1-overlay.png" in written
    assert "image-1-pixel_map-efficientnet_lite0-efficientnet_lite1.npy" in written
    table = (tmp_path / "metrics_compared.csv").read_text().splitlines()
    assert table[0] == "metric,of,picture,unit,efficientnet_lite0,efficientnet_lite1,difference"
    assert table[1].startswith("base_probability,,picture 1,probability,0.95")


def test_what_is_combined_is_combined_for_each_model(client: Client, image: str) -> None:
    other = client.upload(encode(Image.new("RGB", (260, 260), (10, 90, 40)))).id
    params = {"families": [{"family": "brightness", "steps": 3}], "layers": ["last"]}
    job = run(client, "invariance", [image, other], params)
    found = [(one.name, one.model, str(one.variant)) for one in client.results(job.id).artifacts]
    for model in MODELS:
        assert found.count(("curves", model, "brightness")) == 2
        assert ("mean_curves", model, "brightness") in found
        assert ("unit_variance", model, "brightness") in found
    together = "efficientnet_lite0, efficientnet_lite1 · brightness"
    assert found.count(("curves", None, together)) == 2
    assert ("mean_curves", None, together) in found
    assert ("unit_variance", None, together) in found
    assert client.job(job.id).progress.done == client.job(job.id).progress.total


def test_from_the_command_line(
    stack: Stack, photographs: dict[str, Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCCLUSCOPE_URL", stack.url)
    photographs["camera"].save(tmp_path / "camera.png")
    words = ["submit", "occlusion", "--image", str(tmp_path / "camera.png"), "--param", "window=112"]
    words += ["--param", "insertion_deletion=false", "--wait", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--model", MODELS[0], "--model", MODELS[1]])
    assert done.exit_code == 0, done.output
    assert "efficientnet_lite1" in done.output
    assert (tmp_path / "out" / "camera-drop_map-efficientnet_lite0-efficientnet_lite1.png").is_file()


def test_where_a_model_cannot_be_had_the_others_results_are_kept(client: Client, image: str) -> None:
    params = {"window": 112, "insertion_deletion": False}
    models = [*MODELS, "squeezenet1_1"]
    job = client.wait(client.submit("occlusion", models, [image], params).id)
    assert job.state == "failed"
    assert job.error is not None
    assert f"1 of 4 units failed; the first, of picture {image}, with squeezenet1_1: the weights" in job.error
    found = {one.model for one in client.results(job.id).artifacts}
    assert found == {*MODELS, None}


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"models": ["efficientnet_lite0"]}, "models", "at least 2"),
        ({"models": ["efficientnet_lite0"] * 2}, "models.1", "there twice"),
        ({"models": ["efficientnet_lite0", "resnet5"]}, "models.1", "there is no model 'resnet5'"),
        ({"models": ["efficientnet_lite0"] * 9}, "models", "at most 8"),
        ({"models": MODELS, "model": "resnet18"}, "model", "give one model, or several as models"),
        ({}, "model", "give one model, or several as models"),
        ({"model": None}, "model", "give one model"),
        (
            {"models": MODELS, "params": {"feature_layer": "_blocks.18._bn1"}},
            "params.feature_layer",
            "efficientnet_lite0",
        ),
    ],
)
def test_a_wrong_choice_of_models_is_named(
    client: Client, image: str, body: dict[str, object], path: str, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        client._ask("POST", "/v1/jobs", json={"analysis": "occlusion", "images": [image], **body})
    assert caught.value.status == 422
    assert path in [error.path for error in caught.value.errors]
    assert message in str(caught.value)
