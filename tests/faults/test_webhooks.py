"""Webhooks whose receiver is down or slow, and whose deliverer dies: every one is told, and no job waits for it."""

import json
import time

import pytest

from service.store.states import ENDED_JOB
from tests.faults.ledger import INSTANT, SECONDS_LONG
from tests.faults.site import Site
from tests.parts import free_port, wait_until
from tests.receiver import Receiver


def delivered(site: Site, job_id: str) -> bool:
    webhook = site.client.job(job_id).webhook
    return webhook is not None and webhook.state == "delivered"


def test_a_receiver_that_is_down_is_told_when_it_is_back_and_no_job_waits(site: Site) -> None:
    with Receiver(503, 503, 503, 204) as receiver:
        job = site.ledger.submit(INSTANT, 1, webhook=receiver.url)
        assert site.wait(job).state == "succeeded"
        wait_until(lambda: delivered(site, job.id))
    webhook = site.client.job(job.id).webhook
    assert webhook is not None
    assert (webhook.attempts, webhook.status, webhook.error, webhook.next_at) == (4, 204, None, None)
    assert [json.loads(told.body)["data"]["id"] for told in receiver.told] == [job.id] * 4


def test_a_receiver_that_never_answers_holds_up_neither_jobs_nor_their_cancellation(site: Site) -> None:
    with Receiver(seconds=30) as receiver:
        jobs = [site.ledger.submit(INSTANT, 1, webhook=receiver.url) for _ in range(3)]
        long = site.ledger.submit(SECONDS_LONG, 0, webhook=receiver.url, expects=("cancelled",))
        assert {site.wait(job).state for job in jobs} == {"succeeded"}
        site.wait_until_under_way(long)
        asked = time.monotonic()
        assert site.client.cancel(long.id).state == "cancelled"
        assert site.wait(site.ledger.submit(INSTANT, 1)).state == "succeeded"
        assert time.monotonic() - asked < 30  # three that are silent for 30 s each


@pytest.mark.parametrize("running", ["postgresql-valkey"], indirect=True, scope="session")
def test_a_deliverer_killed_in_the_middle_is_replaced_and_told_twice_under_one_id(site: Site) -> None:
    with Receiver(seconds=1) as receiver:
        job = site.ledger.submit(INSTANT, 1, webhook=receiver.url)
        assert site.wait(job).state == "succeeded"
        wait_until(lambda: receiver.told)
        site.parts.kill("reconciler")
        site.parts.start("reconciler")
        wait_until(lambda: delivered(site, job.id), 60)
        assert len({told.headers["webhook-id"] for told in receiver.told}) == 1
        assert len(receiver.told) == 2


def test_an_address_where_nobody_is_is_told_on_the_job(site: Site) -> None:
    job = site.ledger.submit(INSTANT, 1, webhook=f"http://127.0.0.1:{free_port()}/")
    assert site.wait(job).state in ENDED_JOB
    wait_until(lambda: site.client.job(job.id).webhook.attempts >= 2)  # type: ignore[union-attr]
    webhook = site.client.job(job.id).webhook
    assert webhook is not None
    assert (webhook.state, webhook.status) == ("waiting", None)
    assert webhook.error
    assert webhook.next_at is not None
