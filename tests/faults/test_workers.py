"""Workers that die, stop, hang, or only seem to work."""

import resource
import signal
from functools import partial

import httpx
import psutil

from occluscope.client import Job
from service.queue import Queue
from service.settings import Settings
from service.store.workers import live_workers
from tests.faults.ledger import INSTANT, MODEL, SECONDS_LONG
from tests.faults.site import Site
from tests.parts import consumers, wait_until, worker_names

BOTH = worker_names(2)


def holder(site: Site, unit_worker: str | None) -> str:
    """The part that is this worker: its id has its process's number."""
    assert unit_worker is not None
    number = int(unit_worker.split("-")[-2])
    return next(name for name in BOTH if site.parts.processes[name].pid == number)


def has_fence(site: Site, job: Job, fence: int) -> bool:
    return site.unit(job).fence == fence


def say(site: Site, units: int) -> None:
    """Send messages, as the API does."""
    assert Queue(Settings(broker_url=site.parts.environment["OCCLUSCOPE_BROKER_URL"])).announce(units) == units


def test_a_worker_killed_in_the_middle_loses_nothing_and_is_replaced(site: Site) -> None:
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    site.parts.kill(holder(site, site.unit(job).worker_id))
    wait_until(lambda: site.unit(job).fence == 2)
    assert site.wait(job).state == "succeeded"
    site.parts.start(next(name for name in BOTH if name not in site.parts.processes))


def test_a_unit_that_is_delivered_again_after_its_commit_changes_nothing(site: Site) -> None:
    """Its worker is killed after the commit, before the broker has its acknowledgement."""
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    name = holder(site, site.unit(job).worker_id)
    site.broker.swallow()  # acknowledgements go nowhere
    wait_until(lambda: site.client.job(job.id).ended)
    site.parts.kill(name)
    before = site.unit(job)
    site.parts.start(name)
    say(site, 3)
    marker = site.wait(site.ledger.submit(INSTANT, 1))  # the messages before it have been taken when it has run
    assert marker.state == "succeeded"
    after = site.unit(job)
    assert (after.fence, after.finished_at, after.state) == (before.fence, before.finished_at, "succeeded") == (
        1, before.finished_at, "succeeded",
    )  # fmt: skip


def test_a_worker_that_stood_still_past_its_lease_writes_nothing(site: Site) -> None:
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    name = holder(site, site.unit(job).worker_id)
    log_before = len(site.parts.log(name))
    site.parts.send(name, signal.SIGSTOP)
    try:
        wait_until(lambda: site.client.job(job.id).ended, 60)
    finally:
        site.parts.send(name, signal.SIGCONT)
    unit = site.unit(job)
    assert unit.fence == 2
    wait_until(lambda: "unit was not ours any more" in site.parts.log(name)[log_before:])
    assert site.unit(job).finished_at == unit.finished_at


def test_a_worker_that_is_asked_to_end_gives_its_unit_back_in_time(site: Site) -> None:
    job = site.ledger.submit(SECONDS_LONG, 0)
    site.wait_until_under_way(job)
    name = holder(site, site.unit(job).worker_id)
    assert site.parts.kill(name, signal.SIGTERM) == 0
    assert '"event": "unit given back"' in site.parts.log(name)
    assert site.wait(job).state == "succeeded"
    assert (site.unit(job).attempts, site.unit(job).fence) == (1, 2)  # no attempt was lost
    site.parts.start(name)


def test_a_unit_that_kills_its_worker_every_time_fails_and_the_queue_goes_on(site: Site) -> None:
    deadly = site.ledger.submit(SECONDS_LONG, 0, expects=("failed",))
    later = site.ledger.submit(INSTANT, 1)
    for attempt in (1, 2, 3):
        wait_until(partial(has_fence, site, deadly, attempt), 60)
        site.wait_until_under_way(deadly)
        name = holder(site, site.unit(deadly).worker_id)
        site.parts.kill(name)
        site.parts.start(name)
    job = site.wait(deadly)
    assert (job.state, job.error) == ("failed", "its worker died or fell silent 3 times while it ran")
    assert site.wait(later).state == "succeeded"


def test_ten_messages_for_one_unit_run_it_once(site: Site) -> None:
    job = site.ledger.submit(SECONDS_LONG, 0)
    say(site, 10)
    assert site.wait(job).state == "succeeded"
    assert (site.unit(job).fence, site.unit(job).attempts) == (1, 1)


def test_a_worker_without_memory_says_so_and_the_next_job_runs(site: Site) -> None:
    """Its address space is cut while it computes: batches are halved first, and when that does not do, it fails."""
    job = site.client.submit("occlusion", MODEL, [site.ledger.image(0)], SECONDS_LONG)  # other batches, other last bits
    site.wait_until_under_way(job)
    worker = psutil.Process(site.parts.processes[holder(site, site.unit(job).worker_id)].pid)
    worker.rlimit(resource.RLIMIT_AS, (worker.memory_info().vms // 2, resource.RLIM_INFINITY))
    ended = site.wait(job)
    if worker.is_running():
        worker.rlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    reasons = ("out of memory while running efficientnet_lite0", "its worker died or fell silent 3 times while it ran")
    assert ended.state == "succeeded" or ended.error in reasons
    assert site.wait(site.ledger.submit(INSTANT, 1)).state == "succeeded"


def test_workers_that_stopped_receiving_are_ended_and_replaced(site: Site) -> None:
    """Their connections live, and nothing comes: no error is raised anywhere, as after some resets of a broker."""
    site.broker.swallow()
    job = site.ledger.submit(INSTANT, 1)
    statuses: dict[str, int] = {}

    def ended() -> bool:
        statuses.update(site.parts.revive())
        return site.client.job(job.id).ended

    wait_until(ended, 60)
    assert statuses
    assert set(statuses.values()) == {70}
    assert any("watchdog ends the worker" in site.parts.log(name) for name in statuses)


def test_a_worker_whose_connection_is_gone_is_no_consumer(site: Site) -> None:
    """It lives, its heartbeat says so, and still nothing that is submitted now would run."""
    site.broker.refuse()
    wait_until(lambda: consuming(site) == {False})
    answer = httpx.get(f"{site.parts.url}/readyz")
    assert answer.status_code == 503
    assert (answer.json()["workers"], answer.json()["database"]) == (0, True)
    site.broker.recover()
    wait_until(lambda: consumers(site.parts.url) == len(BOTH))


def consuming(site: Site) -> set[bool]:
    """What the living workers say of themselves."""
    with site.ledger.database.reading() as session:
        return {worker.consuming for worker in live_workers(session, 2)}
