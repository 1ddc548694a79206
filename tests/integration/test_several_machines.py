"""The parts on their own, on PostgreSQL and on SQLite, with a broker on TCP: their rows, and what they log."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from occluscope.client import Client, Job
from service.store.database import Database
from service.store.tables import Artifact, Unit
from service.store.tables import Job as JobRow
from tests.conftest import encode, random_picture
from tests.parts import Parts, running_parts, wait_until

SHORT = {"window": 112, "stride": 56, "insertion_deletion": False}
LONG = {"window": 32, "stride": 8, "method": "naive", "insertion_deletion": False}  # long enough to be disturbed


@pytest.fixture(params=["postgresql", "sqlite"], scope="module")
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        url = f"sqlite:///{folder / 'store.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    with running_parts(folder, url) as running:
        yield running


@pytest.fixture
def client(parts: Parts) -> Iterator[Client]:
    with Client(parts.url) as connected:
        yield connected


def submit(client: Client, params: dict[str, Any], seed: int = 0) -> Job:
    image = client.upload(encode(random_picture(seed)))
    return client.submit("occlusion", "efficientnet_lite0", [image.id], params)


def wait_until_under_way(client: Client, job: Job) -> None:
    wait_until(lambda: client.job(job.id).progress.done > 0)


def test_a_job_leaves_its_rows_in_the_database(parts: Parts, client: Client) -> None:
    job = client.wait(submit(client, SHORT).id)
    database = Database(parts.environment["OCCLUSCOPE_DATABASE_URL"])
    with database.reading() as session:
        row = session.get_one(JobRow, job.id)
        (unit,) = session.scalars(select(Unit).where(Unit.job_id == job.id))
        names = set(session.scalars(select(Artifact.name).where(Artifact.job_id == job.id)))
        assert (row.state, unit.state, unit.fence, unit.steps_done) == ("succeeded", "succeeded", 1, 9)
        assert names == {"pixel_map", "drop_map", "probability_map", "predicted_class_map", "top_classes"}
    database.close()


def lines(parts: Parts, name: str) -> list[dict[str, Any]]:
    """A part's log; each line is a JSON object."""
    return [json.loads(line) for line in parts.log(name).splitlines()]


def test_every_log_line_says_whose_it_is(parts: Parts, client: Client) -> None:
    job = submit(client, LONG)
    wait_until_under_way(client, job)
    parts.kill("worker")
    parts.start_worker()
    client.wait(job.id)
    client.results(job.id)
    with Database(parts.environment["OCCLUSCOPE_DATABASE_URL"]).reading() as session:
        (unit_id,) = session.scalars(select(Unit.id).where(Unit.job_id == job.id))
    story = [
        line for name in ("api", "worker", "reconciler") for line in lines(parts, name) if line.get("job") == job.id
    ]
    events = [line["event"] for line in story]
    assert {"job accepted", "request", "unit claimed", "lease ran out", "unit succeeded"} <= set(events)
    assert events.count("unit claimed") == 2
    for line in story:
        if line["logger"].startswith("workers.") or line["event"] == "lease ran out":
            assert line["unit"] == unit_id
    workers_lines = lines(parts, "worker")
    assert all("worker" in line for line in workers_lines if line["logger"].startswith("workers."))
    assert all("unit" in line for line in workers_lines if line["logger"] == "workers.execution")
    requests = [line for line in lines(parts, "api") if line["event"] == "request"]
    assert all(len(line["request"]) == 8 and line["milliseconds"] >= 0 for line in requests)
    assert all(line.get("job", "") in line["path"] for line in requests if line["path"].startswith("/v1/jobs/"))
