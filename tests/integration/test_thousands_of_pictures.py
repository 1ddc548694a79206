"""An analysis of three stages over two thousand pictures is one folder, and what it gives comes through: its workers
die, nothing is lost or doubled, and it is many times what a worker holds.
"""

import os
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

import occluscope
from occluscope.client import Client
from service.running.stack import Stack, running_stack
from service.store.database import Database
from service.store.images import add_image
from service.store.keys import NOBODY
from service.store.tables import Artifact, Unit
from tests.conftest import encode
from tests.parts import wait_until

PICTURES: Final = 2000
IN_A_UNIT: Final = 25
MAP_BYTES: Final = 128 * 128 * 4
MOST_GROWTH: Final = 40 * 2**20  # bytes, of about 125 MiB that one unit gives
DIES_AT: Final = {"work": 700, "maps": 1000}  # pictures

SPEC = '''
"""levels: how much brighter each picture is than all together, for the toy's sake."""

from occluscope.analyses.contract import FIRST, AnalysisSpec, MetricSpec, Parameters, ResultSpec, Stage, Unit


def plan(params, card, images, named):
    """Some pictures a unit."""
    ids = [image.id for image in images]
    some = [ids[start : start + 25] for start in range(0, len(ids), 25)]
    return [Unit(tuple(ids), len(ids), {"first": 25 * number}) for number, ids in enumerate(some)]


def plan_mean(params, card, images, before):
    return [Unit((), 1)]


def plan_maps(params, card, images, before):
    """All pictures in one unit; it looks at none of them."""
    return [Unit((), len(images), {"level": float(before["mean"][0].kept["level"][0])})]


SPEC = AnalysisSpec(
    name="levels",
    title="Levels",
    summary="How much brighter each picture is than all together.",
    parameters=Parameters,
    plan=plan,
    results=(ResultSpec("map", "heatmap", "Map", "The picture's mean level, many times."),),
    metrics=(
        MetricSpec("brighter", "Brighter", "Than all pictures together."),
        MetricSpec("growth", "Growth", "Of the worker's memory while the maps were given."),
    ),
    headline="map",
    later=(Stage("mean", plan_mean), Stage("maps", plan_maps)),
)
'''

COMPUTE = '''
"""levels: computes it."""

import os
import resource
import threading
from pathlib import Path

import numpy as np

from occluscope.analyses.contract import FIRST, Outcome
from occluscope.preparation import Frame
from occluscope.results import GridGeometry, Heatmap, Metric, NamedResult
from occluscope.windows import WindowGrid

GEOMETRY = GridGeometry(WindowGrid.over((128, 128), (1, 1), (1, 1)), (128, 128), Frame(0, 0, 128, 128))


def compute(model, pictures, params, unit, report):
    """Each picture's mean level."""
    means = []
    for number, picture in enumerate(pictures):
        die("work", unit.payload["first"] + number, lambda: report(number))
        means.append(picture.rgb.mean(dtype=np.float64))
        report(number + 1)
    return Outcome([], [], {"means": np.array(means)})


def mean(work, report):
    """Of all pictures."""
    means = np.concatenate([part.kept["means"] for part in work.before[FIRST]])
    report(1)
    return Outcome([], [], {"level": means.mean(keepdims=True)})


def maps(work, report):
    """A map and a number of each picture."""
    began = largest = memory()
    done = 0
    for part in work.before[FIRST]:
        for image, level in zip(part.unit.images, part.kept["means"].tolist(), strict=True):
            die("maps", done, lambda: report(done))
            values = np.full((128, 128), level, dtype=np.float32)
            report.give(
                [NamedResult("map", Heatmap(values, GEOMETRY, "level", "mean level"), image)],
                [Metric("brighter", level - work.unit.payload["level"], None, image)],
            )
            largest = max(largest, memory())
            done += 1
            report(done)
    return Outcome([], [Metric("growth", largest - began, "bytes")])


def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def die(stage, at, report):
    """Wait at one picture to be killed, once."""
    marker = Path(os.environ["TOY_FOLDER"]) / stage
    if at == DIES_AT[stage] and not marker.exists():
        written = marker.with_suffix(".new")
        written.write_text(str(os.getpid()))
        written.rename(marker)
        while True:
            report()
            threading.Event().wait(0.05)
'''.replace("DIES_AT[stage]", f"{DIES_AT}[stage]")


def level(number: int) -> float:
    """The mean level of a picture by its number."""
    return (number % 256 + number // 256 + 7) / 3


def add_pictures(stack: Stack) -> list[str]:
    """Each of one colour, which no other has."""
    database = Database(stack.settings.database_url)
    colours = [(number % 256, number // 256, 7) for number in range(PICTURES)]
    ids = [add_image(database, encode(Image.new("RGB", (16, 16), colour)), NOBODY)[0].id for colour in colours]
    database.close()
    return ids


def supervised(stack: Stack, ended: threading.Event) -> threading.Thread:
    """Parts that die are started again, as by `occluscope up`."""

    def raise_if_asked() -> None:
        if ended.is_set():
            raise KeyboardInterrupt

    def supervise() -> None:
        try:
            stack.supervise(lambda _said: None)
        except KeyboardInterrupt:
            return

    stack.raise_if_asked = raise_if_asked
    thread = threading.Thread(target=supervise)
    thread.start()
    return thread


def test_three_stages_over_thousands_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "path" / "occluscope"
    shutil.copytree(Path(occluscope.__file__).parent, library, ignore=shutil.ignore_patterns("__pycache__"))
    toy = library / "analyses" / "levels"
    toy.mkdir()
    (toy / "__init__.py").touch()
    (toy / "spec.py").write_text(SPEC)
    (toy / "compute.py").write_text(COMPUTE)
    monkeypatch.setenv("PYTHONPATH", f"{library.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("TOY_FOLDER", str(tmp_path))

    ended = threading.Event()
    with running_stack(tmp_path / "state", workers=2) as stack, Client(stack.url) as client:
        supervisor = supervised(stack, ended)
        try:
            die_and_end(client, stack, add_pictures(stack), tmp_path)
        finally:
            ended.set()
            supervisor.join()


def die_and_end(client: Client, stack: Stack, images: list[str], folder: Path) -> None:
    job_id = client.submit("levels", "efficientnet_lite0", images).id
    database = Database(stack.settings.database_url)

    def done() -> int:
        job = client.job(job_id)
        assert job.error is None, job.error
        return job.progress.done

    # One worker waits at its picture, and the other does all other units beside it.
    wait_until(lambda: done() == PICTURES - IN_A_UNIT and (folder / "work").exists(), 120)
    os.kill(int((folder / "work").read_text()), signal.SIGKILL)

    wait_until(lambda: done() == PICTURES + 1 + DIES_AT["maps"] and (folder / "maps").exists(), 120)
    with database.reading() as session:
        given = session.scalar(select(func.count()).select_from(Artifact)) or 0
    assert DIES_AT["maps"] / 2 < given <= DIES_AT["maps"]  # stored as they came
    assert client.results(job_id).artifacts == []  # and shown to nobody
    os.kill(int((folder / "maps").read_text()), signal.SIGKILL)

    job = client.wait(job_id)
    assert (job.state, job.error) == ("succeeded", None)
    assert (job.progress.done, job.progress.total) == (2 * PICTURES + 1, 2 * PICTURES + 1)
    with database.reading() as session:
        attempts = dict(session.execute(select(Unit.stage, func.sum(Unit.attempts)).group_by(Unit.stage)).all())
        rows = session.scalars(select(Artifact.position).order_by(Artifact.position)).all()
    assert attempts == {"work": PICTURES // IN_A_UNIT + 1, "mean": 1, "maps": 2}
    assert list(rows) == list(range(PICTURES))
    database.close()

    results = client.results(job_id)
    assert Counter(artifact.image for artifact in results.artifacts) == Counter(images)
    mean = sum(map(level, range(PICTURES))) / PICTURES
    brighter = {metric.image: metric.value for metric in results.metrics if metric.name == "brighter"}
    assert brighter == pytest.approx({image: level(number) - mean for number, image in enumerate(images)})
    assert len(results.metrics) == PICTURES + 1
    by_image = {artifact.image: artifact for artifact in results.artifacts}
    for number in (0, DIES_AT["maps"], PICTURES - 1):
        (folder / "map.npy").write_bytes(client.download(by_image[images[number]], "npy"))
        assert (np.load(folder / "map.npy") == np.float32(level(number))).all()

    (growth,) = (metric.value for metric in results.metrics if metric.name == "growth")
    assert growth < MOST_GROWTH < PICTURES * MAP_BYTES / 3
