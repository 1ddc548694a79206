"""The ledger: every job that was accepted, and at the end whether each ended once, with the right results.

What a job must give is what an undisturbed run of the same request gave before: every artifact's digest and every
metric's bits, read from the database. Only how many seconds it took may differ.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from sqlalchemy import select

from occluscope.client import Client, Job
from service.store.database import Database
from service.store.states import ENDED_JOB
from service.store.tables import Artifact, Metric, Unit
from service.store.tables import Job as JobRow
from service.store.workers import live_workers
from tests.conftest import encode, random_picture

MODEL = "efficientnet_lite0"
SECONDS_LONG = {"window": 32, "stride": 16, "method": "naive", "insertion_deletion": False}  # 169 windows
INSTANT = {"window": 112, "stride": 56, "insertion_deletion": False}  # 9 windows
SUCCEEDS = ("succeeded",)

Digest = Counter[tuple[Any, ...]]


@dataclass
class Totals:
    """lost: accepted and not ended, or gone. doubled: with results twice. wrong: other results, or another end."""

    submitted: int = 0
    ended: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))

    def __iadd__(self, other: "Totals") -> Self:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    @property
    def all_well(self) -> bool:
        return self.submitted == self.ended and not (self.lost or self.doubled or self.wrong)


@dataclass(frozen=True)
class Request:
    """What is asked for. seeds: of the pictures."""

    params: tuple[tuple[str, Any], ...]
    seeds: tuple[int, ...]


class Ledger:
    """Submits jobs and keeps account of them. url: of the database itself, past any proxy."""

    def __init__(self, client: Client, url: str) -> None:
        self.database = Database(url)
        self._client = client
        self._right: dict[Request, Digest] = {}
        self.findings: list[str] = []  # what was lost, doubled or wrong, in words
        self._accepted: dict[str, tuple[Request, Sequence[str]]] = {}
        self._images: dict[int, str] = {}

    def know(self, params: dict[str, Any], *seeds: int) -> None:
        """Run a request undisturbed, so that it is known what it gives; needed once for each request."""
        request = Request(tuple(params.items()), seeds)
        if request not in self._right:
            job = self._client.wait(self._submit(request).id)
            assert job.state == "succeeded", job.error
            self._right[request] = self.digest(job.id)

    def submit(
        self,
        params: dict[str, Any],
        *seeds: int,
        expects: Sequence[str] = SUCCEEDS,
        key: str | None = None,
        priority: str = "batch",
        webhook: str | None = None,
    ) -> Job:
        """Submit and note a job. expects: the states that it may end in."""
        request = Request(tuple(params.items()), seeds)
        assert request in self._right, "know what it gives first"
        job = self._submit(request, key, priority, webhook)
        self._accepted[job.id] = (request, expects)
        return job

    def note(self, job_id: str, params: dict[str, Any], *seeds: int) -> None:
        """Note a job that was accepted in another way."""
        self._accepted[job_id] = (Request(tuple(params.items()), seeds), SUCCEEDS)

    def expect(self, job_id: str, states: Sequence[str]) -> None:
        """Let a job end in other states than was thought."""
        self._accepted[job_id] = (self._accepted[job_id][0], states)

    def units(self) -> list[Unit]:
        """All units, as they are."""
        with self.database.reading() as session:
            units = list(session.scalars(select(Unit)))
            session.expunge_all()
        return units

    def workers_heard_of(self, within_seconds: float) -> set[str]:
        """Ids of workers that live."""
        with self.database.reading() as session:
            return {worker.id for worker in live_workers(session, within_seconds)}

    def digest(self, job_id: str) -> Digest:
        """Everything that a job gave, each piece as often as it is there."""
        artifacts = select(
            Artifact.name, Artifact.variant, Artifact.model, Artifact.image_id, Artifact.preview, Artifact.sha256
        )
        metrics = select(Metric.name, Metric.variant, Metric.model, Metric.image_id, Metric.value)
        with self.database.reading() as session:
            found: list[Any] = [*session.execute(artifacts.where(Artifact.job_id == job_id))]
            found += session.execute(metrics.where(Metric.job_id == job_id, Metric.name != "seconds"))
        return Counter(tuple(row) for row in found)

    def audit(self) -> Totals:
        """Hold every job noted against what it should have given, and forget them."""
        totals = Totals(submitted=len(self._accepted))
        with self.database.reading() as session:
            jobs = list(session.scalars(select(JobRow)))
            states, errors = {job.id: job.state for job in jobs}, {job.id: job.error for job in jobs}
        for job_id, (request, expected) in self._accepted.items():
            state = states.get(job_id)
            if state not in ENDED_JOB:
                totals.lost += 1
                self.findings.append(f"{job_id}: {state}")
                continue
            totals.ended += 1
            got, right = self.digest(job_id), self._right[request]
            doubled = any(count > right.get(piece, 1) for piece, count in got.items())
            wrong = state not in expected or (state == "succeeded" and got != right)
            totals.doubled += doubled
            totals.wrong += wrong
            if doubled or wrong:
                self.findings.append(f"{job_id}: {state}, {errors[job_id]}, {(got - right) + (right - got)}")
        self._accepted.clear()
        return totals

    def close(self) -> None:
        self.database.close()

    def image(self, seed: int) -> str:
        """Id of the picture with this seed."""
        if seed not in self._images:
            self._images[seed] = self._client.upload(encode(random_picture(seed))).id
        return self._images[seed]

    def _submit(
        self, request: Request, key: str | None = None, priority: str = "batch", webhook: str | None = None
    ) -> Job:
        images = [self.image(seed) for seed in request.seeds]
        return self._client.submit("occlusion", MODEL, images, dict(request.params), key, priority, webhook=webhook)
