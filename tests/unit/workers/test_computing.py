"""A unit's pictures come one by one, and how its computation ends they end."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import delete, select

from occluscope import analyses
from occluscope.analyses.contract import Outcome
from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.models import card
from occluscope.pictures.preparation import Picture
from service.queue import Queue
from service.settings import Settings
from service.store.database import Database
from service.store.images import add_image
from service.store.jobs import submit_job
from service.store.keys import NOBODY
from service.store.tables import Image as StoredImage
from service.store.tables import ImageOwner, JobImage, Unit
from tests.conftest import encode, random_picture
from tests.unit.store.conftest import given
from workers.activity import Activity
from workers.execution import Executor
from workers.heartbeat import Heartbeat

PREPARATION = card("efficientnet_lite0").preparation
Compute = Callable[..., Outcome]
Run = Callable[[Compute, Sequence[bytes]], Unit]

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def executor(database: Database) -> Iterator[Executor]:
    """A worker's, in this process; none of its units leaves a thread."""
    config = Settings(broker_url="redis://127.0.0.1:9/0", broker_timeout_seconds=0.1, progress_seconds=0.001)
    yield Executor(config, database, Queue(config), "w", Heartbeat(database, config, "w", "CPU"), Activity())
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pictures")]


@pytest.fixture
def run(database: Database, executor: Executor, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a unit of these pictures by this compute; gives it as it then is."""

    def run(compute: Compute, contents: Sequence[bytes]) -> Unit:
        images = [add_image(database, content, NOBODY)[0].id for content in contents]
        units = {"efficientnet_lite0": [PlannedUnit(tuple(images), steps=9)]}
        params: dict[str, Any] = {}
        with database.writing() as session:
            submit_job(
                session, analysis="occlusion", params=params, images=images, units=units, request_sha256="0" * 64
            )
        monkeypatch.setattr(analyses, "compute", lambda _name: compute)
        executor.run()
        with database.reading() as session:
            return session.scalars(select(Unit)).one()

    return run


def test_pictures_come_in_the_order_of_the_unit(run: Run) -> None:
    sent = [random_picture(number, (40, 30)) for number in range(5)]
    seen: list[np.ndarray] = []

    def compute(_model: Any, pictures: Sequence[Picture], *_: Any) -> Outcome:
        seen.extend(picture.rgb for picture in pictures)
        assert np.array_equal(np.asarray(pictures[2].original), np.asarray(sent[2]))
        return given(7)

    assert run(compute, [encode(picture) for picture in sent]).state == "succeeded"
    for picture, rgb in zip(sent, seen, strict=True):
        assert np.array_equal(PREPARATION.prepare(picture).rgb, rgb)


def test_a_picture_that_is_gone_fails_the_unit_that_asks_for_it(database: Database, run: Run) -> None:
    def compute(_model: Any, pictures: Sequence[Picture], *_: Any) -> Outcome:
        with database.writing() as session:
            for table in (JobImage, ImageOwner, StoredImage):
                session.execute(delete(table))
        list(pictures)
        return given(7)

    unit = run(compute, [encode(random_picture(1))])
    assert (unit.state, unit.attempts) == ("failed", 1)
    assert unit.error == f"picture {unit.images[0]} is gone"


def test_a_worker_that_is_asked_to_end_while_it_decodes_gives_the_unit_back(run: Run, executor: Executor) -> None:
    large = encode(Image.new("RGB", (8000, 7900)), compress_level=1)  # takes longer than the time between two reports

    def compute(_model: Any, pictures: Sequence[Picture], *_: Any) -> Outcome:
        executor.stopping.set()
        list(pictures)
        raise AssertionError

    assert run(compute, [large]).state == "queued"
