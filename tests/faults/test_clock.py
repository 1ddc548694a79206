"""Clocks that jump: an hour ahead, an hour back, while jobs run and workers die."""

import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from tests.faults.ledger import INSTANT, SECONDS_LONG
from tests.faults.site import Site, running_site
from tests.parts import consumers, wait_until

HOUR = 3600
SUPERVISED_SECONDS = 6  # without a sign of life, after which gunicorn ends a process


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says how far the parts' clocks are off, seconds."""
    path = tmp_path_factory.mktemp("clock") / "offset"
    path.write_text("0")
    return path


@pytest.fixture(scope="module")
def wrong(clock: Path) -> dict[str, str]:
    """The environment of a process whose clock is off by so much. (Debian's libfaketime makes Python's sleep fail.)"""
    library, source = clock.with_name("clock.so"), Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(clock)}


@pytest.fixture(scope="module")
def site(wrong: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """On SQLite: there the clock is the parts' own."""
    environment = {**wrong, "GUNICORN_CMD_ARGS": f"--timeout {SUPERVISED_SECONDS}"}
    with running_site(tmp_path_factory.mktemp("clock-site"), workers=2, environment=environment) as running:
        running.ledger.know(SECONDS_LONG, 0)
        running.ledger.know(INSTANT, 1)
        yield running


@pytest.mark.parametrize("seconds", [+HOUR, -HOUR])
def test_a_clock_that_jumps_while_a_job_runs_disturbs_it_not(site: Site, clock: Path, seconds: int) -> None:
    clock.write_text("0")
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    clock.write_text(str(seconds))
    assert site.wait(job).state == "succeeded"
    assert site.unit(job).fence == 1  # its worker was given time to renew its lease
    assert site.wait(site.ledger.submit(INSTANT, 1)).state == "succeeded"
    totals = site.ledger.audit()
    assert totals.all_well, str(totals)


def test_a_worker_that_dies_when_the_clock_is_set_back_is_replaced_all_the_same(site: Site, clock: Path) -> None:
    """Its lease seems to last for another hour."""
    clock.write_text(str(HOUR))
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    for name in ("worker", "worker-2"):
        site.parts.kill(name)
    clock.write_text("0")
    for name in ("worker", "worker-2"):
        site.parts.start(name)
    wait_until(lambda: site.unit(job).fence == 2, 30)
    assert site.wait(job).state == "succeeded"
    totals = site.ledger.audit()
    assert totals.all_well, str(totals)


def test_an_api_process_outlives_a_clock_that_is_set_back(site: Site, clock: Path) -> None:
    clock.write_text("0")
    time.sleep(2)  # it has looked at the clock
    clock.write_text(str(-HOUR))
    time.sleep(2 * SUPERVISED_SECONDS)  # that it is let live for so long is what is tried
    assert "WORKER TIMEOUT" not in site.parts.log("api")
    assert next(site.client.jobs())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """On PostgreSQL, whose clock all parts share."""
    with running_site(tmp_path_factory.mktemp("shared-clock"), "postgresql", workers=1) as running:
        running.ledger.know(SECONDS_LONG, 0)
        yield running


@pytest.mark.parametrize("seconds", [+HOUR, -HOUR])
def test_an_api_process_with_a_wrong_clock_shows_what_is_right(
    shared: Site, wrong: dict[str, str], clock: Path, seconds: int
) -> None:
    """Only the API's own is wrong."""
    site = shared
    clock.write_text(str(seconds))
    site.parts.kill("api")
    honest, site.parts.environment = site.parts.environment, {**site.parts.environment, **wrong}
    site.parts.start("api")
    site.parts.environment = honest
    wait_until(lambda: site.retried(lambda: consumers(site.parts.url)) == 1, 60)
    answered = httpx.get(f"{site.parts.url}/healthz").headers["Date"]
    assert abs((parsedate_to_datetime(answered) - datetime.now(UTC)).total_seconds()) > HOUR / 2  # it is wrong
    began = datetime.now(UTC)
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    shown = site.client.job(job.id)
    left = shown.progress.eta_seconds
    assert left is not None
    assert 0 < left < HOUR / 6
    waiting = httpx.get(f"{site.parts.url}/metrics").text
    assert all(
        float(age) < HOUR / 6 for age in re.findall(r"^occluscope_\w*oldest\w*\{.*\} (\S+)$", waiting, re.MULTILINE)
    )
    shown = site.wait(job)
    assert shown.started_at is not None
    assert shown.finished_at is not None
    assert began - timedelta(seconds=1) <= shown.created_at <= shown.started_at <= shown.finished_at
    assert shown.finished_at <= datetime.now(UTC) + timedelta(seconds=1)
    totals = site.ledger.audit()
    assert totals.all_well, str(totals)
