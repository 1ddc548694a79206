"""Two workers on one machine: they share a job by pictures or by windows, and what somebody waits for goes first."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from occluscope.client import Client, Job
from service.running.stack import Stack, running_stack
from service.store.database import Database
from service.store.tables import Unit
from tests.conftest import encode, random_picture
from tests.parts import consumers, wait_until

SECONDS_LONG = {"window": 32, "stride": 12, "method": "naive", "insertion_deletion": False}
INSTANT = {"window": 112, "stride": 56, "insertion_deletion": False}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("pair"), workers=2) as running:
        wait_until(lambda: consumers(running.url) == 2, 60)
        yield running


@pytest.fixture
def client(pair: Stack) -> Iterator[Client]:
    with Client(pair.url) as connected:
        yield connected


def submit(client: Client, params: dict[str, Any], *seeds: int, priority: str = "batch") -> Job:
    images = [client.upload(encode(random_picture(seed))).id for seed in seeds]
    return client.submit("occlusion", "efficientnet_lite0", images, params, priority=priority)


def units(stack: Stack, job: Job) -> list[Unit]:
    with Database(stack.settings.database_url).reading() as session:
        return list(session.scalars(select(Unit).where(Unit.job_id == job.id).order_by(Unit.position)))


def test_they_share_the_cores(pair: Stack) -> None:
    logs = [part.log.read_text() for name, part in pair.parts.items() if name.startswith("worker")]
    assert ["CPU, 1 threads" in log for log in logs] == [True, True]


def test_a_job_of_many_pictures_is_shared_by_pictures(pair: Stack, client: Client) -> None:
    job = client.wait(submit(client, SECONDS_LONG, *range(6)).id)
    assert job.state == "succeeded"
    done = units(pair, job)
    assert len(done) == 6
    assert len({unit.worker_id for unit in done}) == 2


def test_a_picture_of_very_many_windows_is_shared_by_windows(pair: Stack, client: Client) -> None:
    windows = {"window": 20, "stride": 1, "within": [60, 60, 160, 160]}  # 81 × 81
    job = client.wait(submit(client, windows, 7).id)
    assert (job.state, job.error) == ("succeeded", None)
    done = units(pair, job)
    assert [unit.stage for unit in done] == ["work", "work", "work", "curves", "maps"]
    assert len({unit.worker_id for unit in done[:3]}) == 2
    results = client.results(job.id)
    shapes = {artifact.name: artifact.shape for artifact in results.artifacts}
    assert shapes["drop_map"] == [81, 81]
    assert "insertion_deletion" in shapes
    assert {metric.value for metric in results.metrics if metric.name == "windows"} == {81 * 81}


def test_what_somebody_waits_for_does_not_wait_for_a_big_job(client: Client) -> None:
    big = submit(client, SECONDS_LONG, *range(8))
    wait_until(lambda: client.job(big.id).state == "running")
    urgent = client.wait(submit(client, INSTANT, 1, priority="interactive").id)
    assert (urgent.state, urgent.priority) == ("succeeded", "interactive")
    assert not client.job(big.id).ended
    client.cancel(big.id)
