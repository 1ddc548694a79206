"""Jobs: submitting, showing, listing and deleting them."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from occluscope.analyses.contract import FIRST
from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.wire import Progress
from service.store.database import clock
from service.store.given import is_shown
from service.store.locks import lock_job
from service.store.scheduling import note_owner
from service.store.stages import models_of, stage_of_units, steps_of, waiting_units
from service.store.states import NO_ANALYSIS, JobState, Priority
from service.store.tables import Artifact, Image, Job, JobImage, Metric, NamedImage, Unit, new_id

_QUERY_IDS: Final = 500  # ids named in one query; databases limit a query's variables


def submit_job(
    session: Session,
    *,
    analysis: str,
    params: dict[str, Any],
    images: Sequence[str],
    units: Mapping[str, Sequence[PlannedUnit]],
    request_sha256: str,
    idempotency_key: str | None = None,
    owner: str = "",
    priority: Priority = Priority.BATCH,
    webhook: str | None = None,
    named: Iterable[str] = (),
) -> Job:
    """Write a job and its units, state ``queued``.

    units: by model. idempotency_key: as the owner sent it. named: pictures that the parameters name, for any stage.
    """
    note_owner(session, owner)
    moment = clock(session)
    needed = {image for of_model in units.values() for unit in of_model for image in unit.images}.union(named)
    _note_use(session, sorted({*images, *needed}), moment)
    job_id = new_id()
    job = Job(
        id=job_id,
        analysis=analysis,
        model=next(iter(units)),
        params=params,
        owner=owner,
        priority=priority,
        webhook=webhook,
        state=JobState.QUEUED,
        idempotency_key=None if idempotency_key is None else _own_key(owner, idempotency_key),
        request_sha256=request_sha256,
        created_at=moment,
        images=[JobImage(position=position, image_id=image) for position, image in enumerate(images)],
        named_images=[NamedImage(image_id=image) for image in sorted(needed.difference(images))],
    )
    for model, planned in units.items():
        job.stages.append(stage_of_units(job_id, len(job.stages), FIRST, model, planned))
        job.units += waiting_units(job, FIRST, model, planned, len(job.units), moment)
    session.add(job)
    session.flush()
    return job


def find_by_idempotency_key(session: Session, key: str, owner: str) -> Job | None:
    """The job that this owner submitted under this key."""
    return session.scalar(select(Job).where(Job.idempotency_key == _own_key(owner, key)))


def find_job(session: Session, job_id: str, owner: str) -> Job | None:
    """One job of this owner; None for others' jobs and for jobs that inspect a model."""
    query = select(Job).where(Job.id == job_id, Job.owner == owner, Job.analysis != NO_ANALYSIS)
    return session.scalar(query)


def delete_job(session: Session, job_id: str) -> bool:
    """Delete a job with its units and results; a worker that still holds a unit finds its claim gone."""
    if lock_job(session, job_id) is None:
        return False
    session.execute(delete(Job).where(Job.id == job_id))
    return True


@dataclass(frozen=True)
class JobPage:
    """A page of jobs, newest first. cursor: of the next page, None on the last."""

    jobs: list[Job]
    cursor: str | None


def list_jobs(
    session: Session,
    *,
    owner: str,
    state: str | None = None,
    analysis: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> JobPage:
    """A page of an owner's jobs. Pages stay right while jobs are added and deleted.

    Raises
    ------
    ValueError
        The cursor was not made by this function.
    """
    query = select(Job).where(Job.owner == owner, Job.analysis != NO_ANALYSIS)
    query = query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
    if state:
        query = query.where(Job.state == state)
    if analysis:
        query = query.where(Job.analysis == analysis)
    if cursor:
        created_at, job_id = _decode_cursor(cursor)
        query = query.where(tuple_(Job.created_at, Job.id) < (created_at, job_id))
    jobs = list(session.scalars(query))
    more = len(jobs) > limit
    jobs = jobs[:limit]
    return JobPage(jobs, _encode_cursor(jobs[-1]) if more else None)


@dataclass(frozen=True)
class Standing:
    """A job's progress, and its models in the order of the request."""

    progress: Progress
    models: list[str]


def standing_of(session: Session, jobs: Sequence[Job]) -> dict[str, Standing]:
    """The standing of several jobs, by id."""
    ids = [job.id for job in jobs]
    steps, models, moment = steps_of(session, ids), models_of(session, ids), clock(session)
    return {job.id: Standing(_progress(job, *steps.get(job.id, (0, 0)), moment), models[job.id]) for job in jobs}


def images_of(session: Session, job_id: str) -> list[str]:
    """The ids of the job's pictures, in the order of the request."""
    query = select(JobImage.image_id).where(JobImage.job_id == job_id).order_by(JobImage.position)
    return list(session.scalars(query))


def results_of(session: Session, job_id: str) -> tuple[list[Metric], list[Artifact]]:
    """What the job's finished units gave, in the order of units and of each analysis."""
    metrics = (
        select(Metric)
        .join(Unit, Unit.id == Metric.unit_id)
        .where(Metric.job_id == job_id, is_shown(Metric))
        .order_by(Unit.position, Metric.position)
    )
    artifacts = (
        select(Artifact)
        .join(Unit, Unit.id == Artifact.unit_id)
        .where(Artifact.job_id == job_id, is_shown(Artifact))
        .order_by(Unit.position, Artifact.preview, Artifact.position)
    )
    return list(session.scalars(metrics)), list(session.scalars(artifacts))


def jobs_by_state(session: Session) -> dict[str, int]:
    """The number of jobs in each state."""
    counts: dict[str, int] = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    return {state: counts.get(state, 0) for state in JobState}


def _own_key(owner: str, key: str) -> str:
    return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


def _note_use(session: Session, image_ids: Sequence[str], moment: datetime) -> None:
    for start in range(0, len(image_ids), _QUERY_IDS):
        some = image_ids[start : start + _QUERY_IDS]
        session.execute(update(Image).where(Image.id.in_(some)).values(used_at=moment))


def _progress(job: Job, done: int, total: int, moment: datetime) -> Progress:
    """moment: now, by the clock that the job's start was written with."""
    if job.finished_at:
        return Progress(done=done, total=total, eta_seconds=0.0)
    if not job.started_at or not done:
        return Progress(done=done, total=total, eta_seconds=None)
    elapsed = (moment - job.started_at).total_seconds()
    left = max(elapsed, 0.0) / done * (total - done)
    return Progress(done=done, total=total, eta_seconds=round(left, 1))


def _encode_cursor(job: Job) -> str:
    key = json.dumps([job.created_at.isoformat(), job.id])
    return base64.urlsafe_b64encode(key.encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        created_at, job_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        moment = datetime.fromisoformat(created_at).astimezone(UTC)
    except (binascii.Error, ValueError, TypeError, OverflowError) as error:
        raise ValueError("not a cursor from this list") from error
    if not isinstance(job_id, str) or "\0" in job_id:
        raise ValueError("not a cursor from this list")
    return moment, job_id
