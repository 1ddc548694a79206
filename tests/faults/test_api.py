"""An API process that dies at the worst moment, or is asked to end."""

import signal
import threading
import time

import pytest
from sqlalchemy import func, select

from occluscope.client import Job, UnreachableError
from service.store.tables import Job as JobRow
from tests.faults.ledger import INSTANT, MODEL
from tests.faults.site import Site
from tests.parts import wait_until

KEY = "the-same-request"


def jobs(site: Site) -> int:
    with site.ledger.database.reading() as session:
        return session.scalar(select(func.count()).select_from(JobRow)) or 0


def test_an_api_killed_between_commit_and_publication_loses_nothing(site: Site) -> None:
    """And whoever asks again, with the same key, gets the job that was accepted."""
    image = site.ledger.image(1)
    before = jobs(site)
    site.broker.fall_silent()  # publication takes its time

    def submit() -> None:
        with pytest.raises(UnreachableError):
            site.client.submit("occlusion", MODEL, [image], INSTANT, idempotency_key=KEY)

    submitting = threading.Thread(target=submit)
    submitting.start()
    wait_until(lambda: jobs(site) == before + 1)
    site.parts.kill("api")
    submitting.join()
    site.broker.recover()
    site.parts.start("api")
    wait_until(lambda: jobs(site) == before + 1 and site.parts.processes["api"].poll() is None)
    job = site.retried(lambda: site.client.submit("occlusion", MODEL, [image], INSTANT, idempotency_key=KEY))
    assert jobs(site) == before + 1
    site.ledger.note(job.id, INSTANT, 1)
    assert site.wait(job).state == "succeeded"


def test_an_api_that_is_asked_to_end_answers_what_it_was_asked_and_exits_cleanly(site: Site) -> None:
    answered: list[Job] = []
    refused: list[float] = []

    def ask() -> None:
        while not refused:
            try:
                answered.append(site.ledger.submit(INSTANT, 1))
            except UnreachableError:
                refused.append(time.monotonic())

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: len(answered) > 3)
    assert site.parts.kill("api", signal.SIGTERM) == 0
    asking.join()
    site.parts.start("api")
    site.retried(lambda: site.client.job(answered[0].id))
    assert {site.wait(job).state for job in answered} == {"succeeded"}
