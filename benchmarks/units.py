"""Claims while 100,000 jobs wait, by one worker and by eight at once, and the commit of a unit of a large job.

python -m benchmarks.units
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from sqlalchemy import select

from benchmarks import database as filling
from benchmarks.writing import write
from occluscope.analyses.contract import Outcome
from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.pictures.preparation import Frame
from occluscope.results import GridGeometry, Heatmap, Metric, NamedResult
from service.store.database import Database
from service.store.images import add_image
from service.store.jobs import submit_job
from service.store.keys import NOBODY
from service.store.leases import claim_unit
from service.store.packing import pack_outcome
from service.store.scheduling import due_unit
from service.store.tables import Unit
from service.store.units import commit_unit
from tests.conftest import encode, random_picture

RESULTS: Final = Path(__file__).parent / "results" / "units.json"
REPEATS: Final = 60
WORKERS: Final = 8
SECONDS: Final = 8.0  # in which workers claim at once
MODELS: Final = ("efficientnet_lite0", "resnet50", "vit_tiny", "mobilenet")
PICTURES: Final = 1000
LEASE_SECONDS: Final = 3600


def claim(database: Database) -> None:
    """As a worker does for each message."""
    with database.writing() as session:
        unit_id = due_unit(session, MODELS[:1])
        assert unit_id is not None
        assert claim_unit(session, unit_id, "w", LEASE_SECONDS) is not None


def claims_per_second(url: str, workers: int) -> float:
    """How many units so many processes claim at once."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(workers + 1)
    counts = spawn.Queue()
    processes = [spawn.Process(target=_claim_for_a_while, args=(url, ready, counts)) for _ in range(workers)]
    for process in processes:
        process.start()
    ready.wait()
    claimed: int = sum(counts.get() for _ in processes)
    for process in processes:
        process.join()
    return round(claimed / SECONDS, 1)


def _claim_for_a_while(url: str, ready: Barrier, counts: "Queue[int]") -> None:
    database = Database(url)
    claim(database)
    ready.wait()
    claimed, ends = 0, time.monotonic() + SECONDS
    while time.monotonic() < ends:
        claim(database)
        claimed += 1
    counts.put(claimed)
    database.close()


def commit_ms(database: Database) -> float:
    """Median milliseconds to pack and commit a unit of a job of 4 models and 1,000 pictures: 4,000 units."""
    image, _ = add_image(database, encode(random_picture(0)), NOBODY)
    planned = [PlannedUnit((image.id,), 169, {})] * PICTURES
    with database.writing() as session:
        job_id = submit_job(
            session,
            analysis="occlusion",
            params={},
            images=[image.id],
            units=dict.fromkeys(MODELS, planned),
            request_sha256="0" * 64,
        ).id
    with database.reading() as session:
        unit_ids = list(session.scalars(select(Unit.id).where(Unit.job_id == job_id).limit(REPEATS + 3)))
    outcome = Outcome([NamedResult(f"map_{n}", _map(), image.id) for n in range(5)], [
        Metric(f"number_{n}", float(n), image=image.id) for n in range(10)
    ])  # fmt: skip
    seconds = []
    for unit_id in unit_ids:
        with database.writing() as session:
            held = claim_unit(session, unit_id, "w", LEASE_SECONDS)
            assert held is not None
        began = time.perf_counter()
        packed = pack_outcome(outcome)
        with database.writing() as session:
            assert commit_unit(session, held, packed)
        seconds.append(time.perf_counter() - began)
    return round(1000 * median(seconds[3:]), 2)


def _map() -> Heatmap:
    return Heatmap(
        np.zeros((13, 13), np.float32),
        GridGeometry.of_pixels((13, 13), Frame(0.0, 0.0, 13.0, 13.0)),
        "probability",
        "drop",
    )


def main() -> None:
    """Fill both databases and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    asked = parser.parse_args()
    rows = []
    for kind in ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory() as folder, filling.opened(kind, Path(folder)) as database:
            filling.fill(database, asked.jobs, queued=asked.jobs)
            url = database.engine.url.render_as_string(hide_password=False)
            row = {"database": kind, "queued": asked.jobs, "claim_ms": filling.median_ms(partial(claim, database))}
            row |= {"claims_per_s": {workers: claims_per_second(url, workers) for workers in (1, WORKERS)}}
            row |= {"commit_ms": commit_ms(database)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    write(RESULTS, rows)


if __name__ == "__main__":
    main()
