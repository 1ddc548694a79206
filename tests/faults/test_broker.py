"""A broker that dies, comes back empty, loses connections, or is not there when jobs are submitted."""

import threading
import time

import httpx
import pytest

from occluscope.client import Job
from tests.faults.ledger import INSTANT, SECONDS_LONG
from tests.faults.site import Site
from tests.parts import is_ready, wait_until

pytestmark = pytest.mark.parametrize(
    "running", ["sqlite-valkey", "postgresql-valkey", "sqlite-redis"], indirect=True, scope="session"
)


def test_a_job_submitted_while_the_broker_is_down_runs_when_it_is_back(site: Site) -> None:
    site.parts.kill("broker")
    wait_until(lambda: not is_ready(site.parts.url))
    answer = httpx.get(f"{site.parts.url}/readyz").json()
    assert (answer["ready"], answer["broker"], answer["database"]) == (False, False, True)
    job = site.ledger.submit(INSTANT, 1)  # still 202
    assert job.state == "queued"
    site.parts.start("broker")
    assert site.wait(job).state == "succeeded"


def test_a_broker_that_dies_while_units_are_announced_loses_none(site: Site) -> None:
    submitted: list[Job] = []

    def submit() -> None:
        submitted.extend(site.ledger.submit(INSTANT, 1) for _ in range(12))

    submitting = threading.Thread(target=submit)
    submitting.start()
    wait_until(lambda: len(submitted) >= 3)
    site.parts.kill("broker")
    time.sleep(0.3)  # it is away for a moment while the rest is announced
    site.parts.start("broker")
    submitting.join()
    assert {site.wait(job).state for job in submitted} == {"succeeded"}


def test_a_broker_that_comes_back_empty_is_told_again(site: Site) -> None:
    running = [site.ledger.submit(SECONDS_LONG, 0) for _ in range(2)]
    waiting = [site.ledger.submit(INSTANT, 1) for _ in range(3)]
    for job in running:
        site.wait_until_under_way(job)
    site.parts.kill("broker")
    site.parts.start("broker")
    assert {site.wait(job).state for job in (*running, *waiting)} == {"succeeded"}
    assert {site.unit(job).fence for job in running} == {1}  # whoever was at work went on


def test_connections_cut_again_and_again_hold_up_nothing(site: Site) -> None:
    jobs = [site.ledger.submit(SECONDS_LONG, 0), *(site.ledger.submit(INSTANT, 1) for _ in range(4))]
    for _ in range(20):
        site.broker.cut()
        time.sleep(0.2)
    assert {site.wait(job).state for job in jobs} == {"succeeded"}


def test_a_broker_that_falls_silent_is_waited_out(site: Site) -> None:
    site.broker.fall_silent()
    job = site.ledger.submit(INSTANT, 1)
    time.sleep(3)  # longer than a lease
    site.broker.recover()
    assert site.wait(job).state == "succeeded"


def test_a_broker_that_falls_silent_holds_up_no_request(site: Site) -> None:
    """More submissions at once than the API has threads: had each to wait for the broker, nobody else were answered."""
    site.broker.fall_silent()
    asked = time.monotonic()
    jobs = [site.ledger.submit(INSTANT, 1) for _ in range(12)]
    assert site.client.job(jobs[0].id).state == "queued"
    assert time.monotonic() - asked < 30  # twelve waits for the broker take a minute
    site.broker.recover()
    assert {site.wait(job).state for job in jobs} == {"succeeded"}
