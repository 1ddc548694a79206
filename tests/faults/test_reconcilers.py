"""Two reconcilers at once, and none for a while."""

from tests.faults.ledger import INSTANT, SECONDS_LONG
from tests.faults.site import Site
from tests.parts import wait_until


def test_two_reconcilers_at_once_do_the_work_of_one(site: Site) -> None:
    site.parts.start_reconciler("reconciler-2")
    try:
        jobs = [site.ledger.submit(SECONDS_LONG, 0), *(site.ledger.submit(INSTANT, 1) for _ in range(6))]
        site.wait_until_under_way(jobs[0])
        site.parts.kill("broker")  # both announce what is left
        site.parts.start("broker")
        site.parts.kill("worker-2")  # and both look for its lease
        site.parts.start("worker-2")
        assert {site.wait(job).state for job in jobs} == {"succeeded"}
        assert {site.unit(job).fence for job in jobs} <= {1, 2}
        assert "internal error" not in site.parts.log("reconciler") + site.parts.log("reconciler-2")
        assert "Traceback" not in site.parts.log("reconciler") + site.parts.log("reconciler-2")
    finally:
        site.parts.kill("reconciler-2")


def test_without_a_reconciler_only_recovery_waits(site: Site) -> None:
    site.parts.kill("reconciler")
    assert site.client.wait(site.ledger.submit(INSTANT, 1).id).state == "succeeded"
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    for name in ("worker", "worker-2"):
        site.parts.kill(name)
        site.parts.start(name)
    site.parts.start("reconciler")
    wait_until(lambda: site.unit(job).fence == 2)
    assert site.wait(job).state == "succeeded"
