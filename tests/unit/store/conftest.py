"""Jobs to try the store with."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from occluscope.analyses.contract import Outcome
from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.pictures.preparation import Frame
from occluscope.results import Column, GridGeometry, Heatmap, Metric, NamedResult, Table
from occluscope.windows import WindowGrid
from service.store.database import Database
from service.store.images import add_image
from service.store.jobs import submit_job
from service.store.packing import PackedOutcome, pack_outcome
from service.store.states import Priority
from tests.conftest import encode, random_picture

SubmitUnits = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def submit(database: Database) -> SubmitUnits:
    """Submit a job of so many units for each model; gives its id and theirs. later: of an analysis with two stages."""

    def submit_units(
        units: int = 1,
        analysis: str = "occlusion",
        key: str | None = None,
        *,
        later: bool = False,
        models: Sequence[str] = ("efficientnet_lite0",),
        owner: str = "",
        priority: Priority = Priority.BATCH,
        masks: Sequence[str] = (),
    ) -> tuple[str, list[str]]:
        images = [add_image(database, encode(random_picture(number)), owner)[0].id for number in range(units)]
        with database.writing() as session:
            job = submit_job(
                session,
                analysis="invariance" if later else analysis,
                params={} if later else {"window": [32, 32]},
                images=images,
                units={
                    model: [PlannedUnit((image, *masks), steps=100, payload={"part": "a"}) for image in images]
                    for model in models
                },
                request_sha256="0" * 64,
                idempotency_key=key,
                owner=owner,
                priority=priority,
            )
            return job.id, [unit.id for unit in job.units]

    return submit_units


def outcome(seed: int = 0, image: str | None = None) -> PackedOutcome:
    """Results of two kinds and a metric, different for each seed, as they are stored."""
    return pack_outcome(given(seed, image))


def given(seed: int = 0, image: str | None = None) -> Outcome:
    """The same as an analysis gives them."""
    values = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    values[0, 0] = np.nan
    geometry = GridGeometry(WindowGrid.over((6, 8), (2, 2), (2, 2)), (6, 8), Frame(0, 0, 8, 6))
    return Outcome(
        [
            NamedResult("map", Heatmap(values, geometry, "probability", "drop"), image),
            NamedResult("rows", Table((Column("n", "integer"),), ((seed,),), "numbers"), image),
        ],
        [Metric("seed", float(seed), "s", image)],
    )
