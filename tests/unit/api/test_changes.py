"""Changes are seen: by a job's ETag, and by what its results have `after` a version."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from occluscope.client import ApiError, Artifact, Client, Results
from service.store.database import Database
from service.store.deliveries import Due, claim_deliveries, note_delivered, note_refused
from service.store.ending import cancel_job
from service.store.given import NOTHING
from service.store.keys import add_key
from service.store.leases import Claim, claim_unit, end_lease, free_expired_units, give_back_unit, renew_lease
from service.store.tables import Job, Unit
from service.store.units import commit_unit, fail_queued_unit, fail_unit, give_results, report_progress
from tests.parts import wait_until
from tests.unit.api.conftest import app_on, serving
from tests.unit.store.conftest import SubmitUnits, outcome

ATTEMPTS = 2
Change = Callable[[Session], object]


@pytest.fixture
def client(database: Database) -> Iterator[Client]:
    """Of the API on the database, over HTTP."""
    url = database.engine.url.render_as_string(hide_password=False)
    with serving(app_on(url)) as address, Client(address) as connected:
        yield connected


class Watched:
    """A job, looked at after every change as a client would that keeps what it was told."""

    def __init__(self, client: Client, database: Database, job_id: str) -> None:
        self._client, self._database = client, database
        self.job_id = job_id
        self.answers: dict[str, Any] = {}  # by ETag
        self.artifacts: dict[str, Artifact] = {}
        self.metrics: list[str] = []
        self._version: int | None = None
        self.etag = ""
        self.look()

    def change(self, change: Change) -> bool:
        """Make a change; gives whether the job's ETag is another."""
        with self._database.writing() as session:
            change(session)
        return self.look()

    def look(self) -> bool:
        """Ask for the job and for what is new of its results, and hold both against what is so."""
        url = f"{self._client.url}/v1/jobs/{self.job_id}"
        known = httpx.get(url, headers={"If-None-Match": self.etag})
        whole = httpx.get(url)
        content, etag = whole.json(), whole.headers["ETag"]
        del content["progress"]["eta_seconds"]
        assert self.answers.setdefault(etag, content) == content, "one ETag, one answer"
        assert (known.status_code == 304) == (etag == self.etag)
        assert known.headers["ETag"] == etag
        if known.status_code == 304:
            assert known.content == b""
        self._look_at_results()
        is_new, self.etag = etag != self.etag, etag
        return is_new

    def _look_at_results(self) -> None:
        new, whole = self._client.results(self.job_id, after=self._version), self._client.results(self.job_id)
        self._version = new.results_version
        self.artifacts = {one.id: one for one in self.artifacts.values() if not one.preview or one.id in new.previews}
        assert not self.artifacts.keys() & {one.id for one in new.artifacts}, "nothing is given twice"
        self.artifacts |= {one.id: one for one in new.artifacts}
        assert self.artifacts == {one.id: one for one in whole.artifacts}
        self.metrics += [one.model_dump_json() for one in new.metrics]
        assert sorted(self.metrics) == sorted(one.model_dump_json() for one in whole.metrics)


@pytest.fixture
def watch(client: Client, database: Database) -> Callable[[str], Watched]:
    return lambda job_id: Watched(client, database, job_id)


def lose(session: Session, claim: Claim) -> None:
    """Let a worker fall silent, and its unit be freed."""
    end_lease(session, claim)
    free_expired_units(session, ATTEMPTS, 30)


def claimed(database: Database, unit_id: str) -> Claim:
    with database.writing() as session:
        claim = claim_unit(session, unit_id, "w", 30)
    assert claim is not None
    return claim


@pytest.mark.slow
def test_every_kind_of_change_gives_another_etag(submit: SubmitUnits, watch: Callable[[str], Watched]) -> None:
    job_id, (first, second, third, fourth) = submit(4)
    job = watch(job_id)
    claims: dict[str, Claim] = {}

    def claim(unit_id: str) -> Change:
        def take(session: Session) -> None:
            found = claim_unit(session, unit_id, "w", 30)
            assert found is not None
            claims[unit_id] = found

        return take

    assert not job.look(), "nothing has changed"
    assert job.change(claim(first)), "it runs"
    assert job.change(lambda session: report_progress(session, claims[first], 10))
    assert job.change(lambda session: report_progress(session, claims[first], 10, outcome(1).results)), "a preview"
    assert job.change(lambda session: report_progress(session, claims[first], 10, outcome(2).results)), "another"
    assert not job.change(lambda session: renew_lease(session, claims[first], 60)), "nothing that is shown"
    assert not job.change(lambda session: give_results(session, claims[first], NOTHING, outcome(3).results, ()))
    assert job.change(lambda session: give_back_unit(session, claims[first])), "its steps are to do again"
    assert not job.change(claim(first)), "one more unit of a job that runs"
    assert job.change(lambda session: commit_unit(session, claims[first], outcome(4)))
    job.change(claim(second))
    assert job.change(lambda session: fail_unit(session, claims[second], "no")), "its steps are done"
    job.change(claim(third))
    job.change(lambda session: report_progress(session, claims[third], 30))
    job.change(lambda session: end_lease(session, claims[third]))
    assert job.change(lambda session: free_expired_units(session, ATTEMPTS, 30)), "given up, to be done again"
    job.change(claim(third))
    job.change(lambda session: end_lease(session, claims[third]))
    assert job.change(lambda session: free_expired_units(session, ATTEMPTS, 30)), "failed"
    assert job.change(lambda session: fail_queued_unit(session, fourth, "unreadable")), "the last, and the job's end"
    assert job.answers[job.etag]["state"] == "failed"
    assert not job.look()


def test_a_stage_that_is_planned_gives_another_etag(
    database: Database, submit: SubmitUnits, watch: Callable[[str], Watched]
) -> None:
    job_id, (unit,) = submit(1, later=True)
    job, claim = watch(job_id), claimed(database, unit)
    job.look()
    before = job.answers[job.etag]["progress"]["total"]
    assert job.change(lambda session: commit_unit(session, claim, outcome()))
    assert job.answers[job.etag]["progress"]["total"] != before or job.answers[job.etag]["state"] == "failed"


def test_cancelling_gives_another_etag(
    database: Database, submit: SubmitUnits, watch: Callable[[str], Watched]
) -> None:
    job_id, (unit,) = submit(1)
    job, claim = watch(job_id), claimed(database, unit)
    assert job.change(lambda session: report_progress(session, claim, 10, outcome().results))
    assert job.change(lambda session: cancel_job(session, job_id))
    assert not job.artifacts, "its preview is gone"
    assert not job.change(lambda session: cancel_job(session, job_id))


def test_what_a_worker_of_the_version_before_ends_is_seen(
    database: Database, submit: SubmitUnits, watch: Callable[[str], Watched]
) -> None:
    """It may still run during an update, and numbers neither the job's changes nor its unit's."""
    job_id, (unit,) = submit(1)
    job, claim = watch(job_id), claimed(database, unit)
    assert job.change(lambda session: report_progress(session, claim, 100))

    def commit(session: Session) -> None:
        version = session.get_one(Job, job_id).version
        assert commit_unit(session, claim, outcome())
        session.flush()
        session.execute(update(Job).where(Job.id == job_id).values(version=version))
        session.execute(update(Unit).where(Unit.id == unit).values(results_version=0))

    assert job.change(commit)
    assert job.artifacts


def test_every_step_of_a_delivery_gives_another_etag(
    database: Database, submit: SubmitUnits, watch: Callable[[str], Watched]
) -> None:
    for ends in ("delivered", "given up"):
        job_id, (unit,) = submit(1)
        with database.writing() as session:
            session.execute(update(Job).where(Job.id == job_id).values(webhook="https://example.org/"))
        job, claim = watch(job_id), claimed(database, unit)
        job.look()
        assert job.change(lambda session: commit_unit(session, claim, outcome())), "it waits"  # noqa: B023 - run at once
        due: list[Due] = []
        assert job.change(lambda session: due.extend(claim_deliveries(session, "", 1, -1))), "an attempt"  # noqa: B023
        assert job.change(lambda session: note_refused(session, due[-1], "busy", 503, -1)), "refused"  # noqa: B023
        job.change(lambda session: due.extend(claim_deliveries(session, "", 1, -1)))  # noqa: B023
        assert not job.change(lambda session: note_delivered(session, due[0], 204)), "by who was too slow"  # noqa: B023
        if ends == "delivered":
            assert job.change(lambda session: note_delivered(session, due[-1], 204))  # noqa: B023
        else:
            assert job.change(lambda session: note_refused(session, due[-1], "gone", 410))  # noqa: B023


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_an_etag_stands_for_one_answer_and_after_gives_what_is_new(
    submit: SubmitUnits, watch: Callable[[str], Watched], seed: int
) -> None:
    """`Watched` holds every answer and every result against what is so."""
    chance = np.random.default_rng(seed)
    job_id, units = submit(5, models=("resnet18", "resnet50"))
    _, (of_another_job, _) = submit(2)
    job = watch(job_id)
    held: dict[str, Claim] = {}
    happenings: list[Callable[[Session, Claim, int], object]] = [
        report_progress,
        lambda session, claim, number: report_progress(session, claim, number, outcome(number).results),
        lambda session, claim, number: report_progress(session, claim, number, outcome(number).results),
        lambda session, claim, _: give_back_unit(session, held.pop(claim.unit_id), failed_attempt=True),
        lambda session, claim, number: commit_unit(session, held.pop(claim.unit_id), outcome(number)),
        lambda session, claim, number: fail_unit(session, held.pop(claim.unit_id), f"reason {number}"),
        lambda session, claim, _: lose(session, held.pop(claim.unit_id)),
        lambda session, claim, _: renew_lease(session, claim, 60),
    ]
    for number in range(40):
        unit = str(chance.choice([*units, of_another_job]))
        happening = happenings[chance.integers(len(happenings))]

        def change(session: Session, number: int = number, unit: str = unit, happening: Any = happening) -> None:
            if unit in held:
                happening(session, held[unit], number)
            elif claim := claim_unit(session, unit, "w", 30):
                held[unit] = claim

        job.change(change)
    job.change(lambda session: cancel_job(session, job_id))
    assert len(job.answers) > 10


def test_a_result_committed_late_is_missed_by_nobody(database: Database, submit: SubmitUnits, client: Client) -> None:
    """Of two units that end side by side, the one that is numbered first is committed first."""
    if database.is_sqlite:
        pytest.skip("SQLite has one writer")
    job_id, units = submit(2)
    one, other = (claimed(database, unit) for unit in units)
    before = client.results(job_id).results_version

    def commit() -> None:
        with database.writing() as session:
            assert commit_unit(session, other, outcome(2))

    with ThreadPoolExecutor(1) as pool:
        with ExitStack() as slow:
            session = slow.enter_context(database.writing())
            assert commit_unit(session, one, outcome(1))
            session.flush()
            quick = pool.submit(commit)
            wait_until(lambda: waiting(database), 30)
            meanwhile = client.results(job_id, after=before)
            assert (meanwhile.artifacts, meanwhile.results_version) == ([], before)
        quick.result(30)
    assert seeds(client.results(job_id, after=before)) == [1.0, 2.0]


def test_units_that_end_side_by_side_are_each_given_once(
    database: Database, submit: SubmitUnits, client: Client
) -> None:
    job_id, units = submit(24)
    claims = [claimed(database, unit) for unit in units]

    def end(number: int) -> None:
        with database.writing() as session:
            assert commit_unit(session, claims[number], outcome(number))

    version = client.results(job_id).results_version
    found: list[float] = []
    with ThreadPoolExecutor(6) as pool:
        ends = pool.map(end, range(len(units)))
        while len(found) < len(units):
            ended = client.job(job_id).ended
            new = client.results(job_id, after=version)
            found, version = found + seeds(new), new.results_version
            assert len(found) == len(units) or not ended, "all have ended, and one is missing"
        assert len(list(ends)) == len(units)
    assert sorted(found) == [float(number) for number in range(len(units))]


def test_pages_are_of_one_version(database: Database, submit: SubmitUnits, client: Client) -> None:
    """A unit that ends after the first page was given comes with the next `after`, and not twice."""
    job_id, units = submit(4)
    images = client.job(job_id).images

    def end(number: int) -> None:
        claim = claimed(database, units[number])
        with database.writing() as session:
            assert commit_unit(session, claim, outcome(number, images[number]))

    for number in range(3):
        end(number)
    url = f"{client.url}/v1/jobs/{job_id}/results"
    page = httpx.get(url, params={"limit": 1}).json()
    end(3)
    pages = [page]
    while page["next_cursor"]:
        page = httpx.get(url, params={"limit": 1, "cursor": page["next_cursor"]}).json()
        pages.append(page)
    assert len({page["results_version"] for page in pages}) == 1
    assert [metric["value"] for page in pages for metric in page["metrics"]] == [0.0, 1.0, 2.0]
    assert seeds(client.results(job_id, after=page["results_version"])) == [3.0]
    assert seeds(client.results(job_id, after=0)) == [0.0, 1.0, 2.0, 3.0]


def test_a_jobs_results_version_is_that_of_its_results(database: Database, submit: SubmitUnits, client: Client) -> None:
    job_id, units = submit(2)
    for number, unit in enumerate(units):
        claim = claimed(database, unit)
        seen = client.job(job_id)
        assert client.results(job_id, after=seen.results_version).artifacts == []
        with database.writing() as session:
            assert commit_unit(session, claim, outcome(number))
        assert seeds(client.results(job_id, after=seen.results_version)) == [float(number)]


def test_nobody_is_given_what_is_anothers(database: Database, submit: SubmitUnits, client: Client) -> None:
    job_id, (unit,) = submit(1, owner="ada")
    claim = claimed(database, unit)
    with database.writing() as session:
        keys = {owner: add_key(session, owner) for owner in ("ada", "ben")}
        assert commit_unit(session, claim, outcome())
    url, authorization = f"{client.url}/v1/jobs/{job_id}", {owner: f"Bearer {key}" for owner, key in keys.items()}
    with Client(client.url, api_key=keys["ada"]) as ada, Client(client.url, api_key=keys["ben"]) as ben:
        etag = httpx.get(url, headers={"Authorization": authorization["ada"]}).headers["ETag"]
        assert seeds(ada.results(job_id, after=0)) == [0.0]
        with pytest.raises(ApiError, match="no such job"):
            ben.results(job_id, after=0)
        headers = {"Authorization": authorization["ben"], "If-None-Match": etag}
        assert httpx.get(url, headers=headers).status_code == 404


@pytest.mark.parametrize("after", ["-1", "x", "1.5", str(2**31), ""])
def test_an_after_that_is_no_version_is_named(client: Client, submit: SubmitUnits, after: str) -> None:
    answer = httpx.get(f"{client.url}/v1/jobs/{submit(1)[0]}/results", params={"after": after})
    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == ["after"]


def seeds(results: Results) -> list[float]:
    return [metric.value for metric in results.metrics]


def waiting(database: Database) -> bool:
    """Whether a transaction waits for another's lock."""
    with database.reading() as session:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(session.scalar(query))
