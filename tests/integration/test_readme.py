"""What the README and the documentation tell a stranger to type works as it stands there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from occluscope.analyses.contract import ImageRef
from occluscope.models.loading import LoadedModel
from service.running.stack import Stack

ROOT = Path(__file__).parents[2]
README = "README.md"
QUICK_START = "docs/quick-start.md"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of this language that a page marks as tested."""
    found = re.findall(
        rf"<!-- tests/integration/test_readme.py runs this -->\n```{language}\n(.*?)```",
        (ROOT / page).read_text(),
        re.DOTALL,
    )
    assert found
    return [str(one) for one in found]


def block(page: str, language: str) -> str:
    """The one block of this language that a page marks as tested."""
    (found,) = blocks(page, language)
    return found


@pytest.fixture
def folder(tmp_path: Path, photographs: dict[str, Image.Image]) -> Path:
    """A folder with a picture of a cat."""
    photographs["chelsea"].save(tmp_path / "cat.jpg", quality=95)
    return tmp_path


def test_the_curl_commands(folder: Path, stack: Stack) -> None:
    script = block(QUICK_START, "sh").replace("http://127.0.0.1:8000", stack.url)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, check=True, timeout=120)
    assert json.loads((folder / "job.json").read_text())["state"] == "succeeded"
    names = {metric["name"] for metric in json.loads((folder / "results.json").read_text())["metrics"]}
    assert {"base_probability", "max_drop", "windows", "seconds"} <= names
    assert Image.open(folder / "overlay.png").height == 300
    assert np.load(folder / "map.npy").shape == (224, 224)


@pytest.mark.parametrize("page", [README, QUICK_START])
def test_the_python_code(page: str, folder: Path, stack: Stack) -> None:
    environment = {**os.environ, "OCCLUSCOPE_URL": stack.url}
    done = subprocess.run(
        [sys.executable, "-c", block(page, "python")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "base_probability 0.3" in done.stdout
    assert (folder / "results" / "image-1-pixel_map-overlay.png").exists()


def test_the_analysis_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lite0: LoadedModel, photographs: dict[str, Image.Image]
) -> None:
    """Its last point is the model's answer to the picture that Pillow makes grey by itself."""
    names = ("occluscope.analyses.colour.spec", "occluscope.analyses.colour.compute")
    spec, compute = [
        imported(name, text, tmp_path, monkeypatch)
        for name, text in zip(names, blocks("docs/how-to/own-analysis.md", "python"), strict=True)
    ]
    picture = photographs["chelsea"]
    prepared = lite0.card.preparation.prepare(picture)
    params = spec.SPEC.parse({"steps": 5})
    (unit,) = spec.SPEC.plan(params, lite0.card, [ImageRef("cat", *picture.size)], {})
    steps: list[int] = []
    outcome = compute.compute(lite0, [prepared], params, unit, steps.append)

    assert steps == [1, 2, 3, 4, 5] == list(range(1, unit.steps + 1))
    grey = np.array(Image.fromarray(prepared.rgb).convert("L").convert("RGB"))
    probabilities = lite0.module(lite0.tensor(np.stack([prepared.rgb, grey]))).double().softmax(1)
    target = int(probabilities[0].argmax())
    metrics = {metric.name: metric.value for metric in outcome.metrics}
    assert metrics["base_score"] == pytest.approx(float(probabilities[0, target]), rel=1e-5)
    assert metrics["grey_score"] == pytest.approx(float(probabilities[1, target]), rel=1e-5)
    assert metrics.keys() == {metric.name for metric in spec.SPEC.metrics}
    (curve,) = outcome.results
    assert (curve.name, curve.result.kind) == ("curve", spec.SPEC.results[0].kind)


def imported(name: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of this name and text."""
    path = folder / f"{name}.py"
    path.write_text(text)
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, name, module)
    found.loader.exec_module(module)
    return module


def test_the_rule_of_ones_own() -> None:
    """It gives the numbers of whole passes, and only the flattening at the end is left without a rule."""
    look, example = blocks("docs/how-to/own-rule.md", "python")
    done = subprocess.run([sys.executable, "-c", example + look], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    difference, without_rule = done.stdout.splitlines()
    assert float(difference.removeprefix("largest difference, of the largest output: ")) < 1e-5
    assert without_rule == "['_5']"
