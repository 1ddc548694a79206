"""What the README tells a stranger to type works as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.stack import Stack

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str) -> str:
    """The block of this language that the README marks as tested."""
    found = re.search(
        rf"<!-- tests/integration/test_readme.py runs this -->\n```{language}\n(.*?)```", README, re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, photographs: dict[str, Image.Image]) -> Path:
    """A folder with a picture of a cat."""
    photographs["chelsea"].save(tmp_path / "cat.jpg", quality=95)
    return tmp_path


def test_the_curl_commands(folder: Path, stack: Stack) -> None:
    script = block("sh").replace("http://127.0.0.1:8000", stack.url)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, check=True, timeout=120)
    assert json.loads((folder / "job.json").read_text())["state"] == "succeeded"
    names = {metric["name"] for metric in json.loads((folder / "results.json").read_text())["metrics"]}
    assert {"base_probability", "max_drop", "windows", "seconds"} <= names
    assert Image.open(folder / "overlay.png").height == 300
    assert np.load(folder / "map.npy").shape == (224, 224)


def test_the_python_code(folder: Path, stack: Stack) -> None:
    environment = {**os.environ, "OCCLUSCOPE_URL": stack.url}
    done = subprocess.run(
        [sys.executable, "-c", block("python")],
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
