"""Adding an analysis is one folder: nothing in service, workers or web is touched."""

import shutil
from pathlib import Path

import pytest

import occluscope
from occluscope import analyses
from occluscope.client import Client
from service.running.stack import running_stack
from tests.conftest import encode, random_picture

SPEC = '''
"""brightness: the mean level of each channel, for the toy's sake."""

from pydantic import Field

from occluscope.analyses.contract import AnalysisSpec, MetricSpec, Parameters, ResultSpec, Unit


class BrightnessParameters(Parameters):
    """What can be set."""

    factor: int = Field(default=1, ge=1, le=3, description="Multiplies every level.")


def plan(params, card, images, named):
    return [Unit(images=(image.id,), steps=1, payload={"width": image.width}) for image in images]


SPEC = AnalysisSpec(
    name="brightness",
    title="Brightness",
    summary="How bright a picture is.",
    parameters=BrightnessParameters,
    plan=plan,
    results=(
        ResultSpec("levels", "heatmap", "Levels", "The grey level of every pixel."),
        ResultSpec("channels", "table", "Channels", "The mean of every channel."),
    ),
    metrics=(MetricSpec("mean_level", "Mean level", "Over all pixels and channels."),),
    headline="levels",
)
'''

COMPUTE = '''
"""brightness: computes it."""

from occluscope.analyses.contract import Outcome
from occluscope.results import Column, GridGeometry, Heatmap, Metric, NamedResult, Table


def compute(model, pictures, params, unit, report):
    (picture,), (image,) = pictures, unit.images
    levels = picture.rgb.astype("float32") * params.factor
    report(1)
    geometry = GridGeometry.of_pixels(model.card.input_size, picture.frame)
    means = tuple((name, float(levels[..., index].mean())) for index, name in enumerate("RGB"))
    table = Table((Column("channel", "text"), Column("mean", "number")), means, "mean of every channel")
    return Outcome(
        [
            NamedResult("levels", Heatmap(levels.mean(axis=2), geometry, "level", "grey level"), image),
            NamedResult("channels", table, image),
        ],
        [Metric("mean_level", float(levels.mean()), None, image), Metric("width", unit.payload["width"])],
    )
'''


def test_an_analysis_is_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the library with one folder more, put before the installed one for every part of the service."""
    library = tmp_path / "path" / "occluscope"
    shutil.copytree(Path(occluscope.__file__).parent, library, ignore=shutil.ignore_patterns("__pycache__"))
    toy = library / "analyses" / "brightness"
    toy.mkdir()
    (toy / "__init__.py").touch()
    (toy / "spec.py").write_text(SPEC)
    (toy / "compute.py").write_text(COMPUTE)
    monkeypatch.setenv("PYTHONPATH", str(library.parent))

    with running_stack(tmp_path / "state") as stack, Client(stack.url) as client:
        described = {analysis["name"]: analysis for analysis in client.analyses()}
        assert set(described) == {"brightness", *analyses.names()}
        assert described["brightness"]["parameters"]["properties"]["factor"]["maximum"] == 3

        image = client.upload(encode(random_picture(1, (300, 200))))
        job = client.wait(client.submit("brightness", "efficientnet_lite0", [image.id], {"factor": 2}).id)
        assert (job.state, job.error) == ("succeeded", None)
        results = client.results(job.id)
        metrics = {metric.name: metric.value for metric in results.metrics}
        assert metrics["mean_level"] == pytest.approx(2 * 127.5, abs=3)
        assert metrics["width"] == 300
        assert [(artifact.name, artifact.kind) for artifact in results.artifacts] == [
            ("levels", "heatmap"),
            ("channels", "table"),
        ]
        written = client.save_results(job.id, tmp_path / "out")
        assert tmp_path / "out" / "image-1-levels-overlay.png" in written
        assert (tmp_path / "out" / "image-1-channels.csv").read_text().startswith("channel,mean\nR,")
