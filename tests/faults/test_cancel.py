"""A job cancelled at every stage: waiting, just claimed, under way, ending, ended; and with its worker dead."""

import time

import pytest

from occluscope.client import ApiError
from tests.faults.ledger import INSTANT, MODEL, SECONDS_LONG
from tests.faults.site import Site
from tests.parts import wait_until

MINUTES_LONG = {"window": 16, "stride": 2, "method": "naive", "insertion_deletion": False}  # 11,025 windows
EITHER = ("cancelled", "succeeded")


def cancel(site: Site, job_id: str) -> str:
    try:
        return site.client.cancel(job_id).state
    except ApiError as error:
        assert "already succeeded" in str(error)  # noqa: PT017
        return "succeeded"


def is_idle(site: Site) -> bool:
    """Whether a new job runs: no worker is held up by what was cancelled, which would take minutes."""
    asked = time.monotonic()
    site.client.wait(site.ledger.submit(INSTANT, 1, priority="interactive").id)
    return time.monotonic() - asked < 60


def test_while_it_waits(site: Site) -> None:
    busy = [site.ledger.submit(SECONDS_LONG, 0) for _ in range(2)]
    waiting = site.ledger.submit(SECONDS_LONG, 0, expects=("cancelled",))
    assert cancel(site, waiting.id) == "cancelled"
    assert {site.wait(job).state for job in busy} == {"succeeded"}
    assert site.unit(waiting).fence == 0


def test_while_it_runs_its_worker_is_free_long_before_it_would_have_ended(site: Site) -> None:
    jobs = [site.client.submit("occlusion", MODEL, [site.ledger.image(0)], MINUTES_LONG) for _ in range(2)]
    for job in jobs:
        site.wait_until_under_way(job)
        assert cancel(site, job.id) == "cancelled"
    assert is_idle(site)
    assert {site.client.job(job.id).state for job in jobs} == {"cancelled"}
    assert {piece for job in jobs for piece in site.ledger.digest(job.id)} == set()


@pytest.mark.parametrize("delay_seconds", [0.0, 0.01, 0.02, 0.05, 0.1, 0.2])
def test_at_any_moment_of_a_short_job(site: Site, delay_seconds: float) -> None:
    """Claimed, computing, committing: whichever it is, it ends once, as cancelled or as succeeded."""
    job = site.ledger.submit(INSTANT, 1, expects=EITHER)
    time.sleep(delay_seconds)  # the moment itself is what is tried
    state = cancel(site, job.id)
    assert site.client.job(job.id).state == state
    assert is_idle(site)
    assert site.client.job(job.id).state == state


def test_after_its_end_it_is_refused(site: Site) -> None:
    job = site.wait(site.ledger.submit(INSTANT, 1))
    with pytest.raises(ApiError, match="already succeeded"):
        site.client.cancel(job.id)


def test_with_its_worker_dead(site: Site) -> None:
    job = site.ledger.submit(SECONDS_LONG, 0, expects=("cancelled",))
    site.wait_until_under_way(job)
    for name in ("worker", "worker-2"):
        site.parts.kill(name)
    assert cancel(site, job.id) == "cancelled"
    for name in ("worker", "worker-2"):
        site.parts.start(name)
    wait_until(lambda: is_idle(site), 60)
    assert (site.unit(job).state, site.unit(job).fence) == ("cancelled", 1)
