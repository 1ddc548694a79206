"""``/v1/jobs``: submit, show, list, delete, and what they gave."""

import hashlib
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from flask import Response, url_for
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from occluscope import __version__, wire
from occluscope.errors import FieldError
from occluscope.results import KINDS
from service.api.auth import PROTECTED, owner
from service.api.context import Context, IdPath, Strict, context
from service.api.problems import documented, invalid, not_found, problem
from service.api.submission import JobRequest, check_request
from service.api.views import UNCHANGED, answer, is_known, revalidated, unchanged, view
from service.store import jobs as store
from service.store.deliveries import delivery_of
from service.store.ending import cancel_job
from service.store.results import names_of_results, previews_of, results_page
from service.store.states import ENDED_JOB, DeliveryState, JobState, Priority
from service.store.tables import Artifact, Job, Metric

blueprint = APIBlueprint("jobs", __name__, url_prefix="/v1/jobs", abp_tags=[Tag(name="jobs")], **PROTECTED)

_log = structlog.get_logger(__name__)

POLL_SECONDS = 1  # Retry-After of a job that has just been accepted


class IdempotencyHeader(BaseModel):
    """A key that makes a repeated submission give the same job."""

    idempotency_key: Annotated[str | None, Field(alias="Idempotency-Key")] = Field(
        default=None, min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$"
    )


class JobQuery(Strict):
    """Which jobs to list."""

    state: JobState | None = None
    analysis: str | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before")


class ResultsQuery(Strict):
    """Which results to give."""

    image: Annotated[str | None, Field(max_length=100)] = Field(
        default=None, description="Those of this picture alone, by its id"
    )
    name: Annotated[str | None, Field(max_length=100)] = Field(
        default=None, description="Of the artifacts those of this name; metrics of their pictures all the same"
    )
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=50, description="Pictures of a page")
    cursor: Annotated[str | None, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")] = Field(
        default=None, description="`next_cursor` of the page before"
    )
    after: Annotated[int | None, Field(ge=0, lt=2**31)] = Field(
        default=None,
        description="A `results_version`: only results of units that gave or replaced some later",
    )


@blueprint.post(
    "",
    summary="Submit a job",
    responses={202: wire.Job, **documented(400, 409, 413, 415, 422)},
)
def submit(header: IdempotencyHeader, body: JobRequest) -> Response:
    """Answers at once; the job runs when a worker is free."""
    here, key, sha256 = context(), header.idempotency_key, body.sha256()
    if key and (known := _submitted_before(here, key, sha256)):
        return known
    with here.database.reading() as session:
        submission = check_request(session, body, here.settings, owner())
    try:
        with here.database.writing() as session:
            job = store.submit_job(
                session,
                analysis=body.analysis,
                params=submission.params,
                images=body.images,
                units=submission.units,
                request_sha256=sha256,
                idempotency_key=key,
                owner=owner(),
                priority=Priority.labelled(body.priority),
                webhook=body.webhook,
                named=submission.named,
            )
            job_id, units = job.id, len(job.units)
            nothing_done = wire.Progress(done=0, total=sum(unit.steps_total for unit in job.units), eta_seconds=None)
            standing = store.Standing(nothing_done, list(submission.units))
            accepted = _answer(_whole(session, job, standing, body.images))
    except IntegrityError:
        if key and (known := _submitted_before(here, key, sha256)):
            return known  # the same key was sent twice at once, and the other request was first
        with here.database.reading() as session:  # a picture was deleted meanwhile; this names it
            check_request(session, body, here.settings, owner())
        raise
    structlog.contextvars.bind_contextvars(job=job_id)
    here.announcer.tell(units)
    _log.info("job accepted", analysis=body.analysis, units=units)
    return accepted


@blueprint.get("", summary="List jobs", responses={200: wire.JobList, **documented(422)})
def list_page(query: JobQuery) -> Response:
    """Newest first, page by page."""
    with context().database.reading() as session:
        try:
            page = store.list_jobs(session, owner=owner(), **query.model_dump())
        except ValueError as error:
            return invalid([FieldError("cursor", str(error))])
        standing = store.standing_of(session, page.jobs)
        shown = [_summary(job, standing[job.id]) for job in page.jobs]
    return answer(wire.JobList(jobs=shown, next_cursor=page.cursor))


@blueprint.get("/<id>", summary="Show a job", responses={200: wire.Job, **UNCHANGED, **documented(404)})
def show(path: IdPath) -> Response:
    """State, progress and what went wrong. The `ETag` changes whenever any of it does, but for `eta_seconds`, which
    changes with time alone.
    """
    with context().database.reading() as session:
        job = store.find_job(session, path.id, owner())
        if job is None:
            return not_found("job")
        standing = store.standing_of(session, [job])[job.id]
        # State and results are in it though the version grows with them: a part of the version before this one, which
        # may still run during an update, does not number its changes.
        etag = f"{job.version}-{job.state}-{job.results_version}-{standing.progress.done}-{__version__}"
        if is_known(etag):
            return unchanged(etag, weak=True)
        shown = _whole(session, job, standing, store.images_of(session, job.id))
        return revalidated(answer(shown), etag, weak=True)


@blueprint.delete("/<id>", summary="Delete a job", responses={204: None, **documented(404)})
def delete(path: IdPath) -> Response:
    """With its results; a worker that runs it stops."""
    with context().database.writing() as session:
        found = store.find_job(session, path.id, owner())
        deleted = found is not None and store.delete_job(session, path.id)
    return Response(status=HTTPStatus.NO_CONTENT) if deleted else not_found("job")


@blueprint.post("/<id>/cancel", summary="Cancel a job", responses={202: wire.Job, **documented(404, 409)})
def cancel(path: IdPath) -> Response:
    """What is finished stays; a worker that runs it stops within two seconds. Cancelling again changes nothing."""
    with context().database.writing() as session:
        found = store.find_job(session, path.id, owner())
        state = None if found is None else cancel_job(session, path.id)
    if state is None:
        return not_found("job")
    if state != JobState.CANCELLED:
        return problem(HTTPStatus.CONFLICT, f"The job has already {state}.")
    with context().database.reading() as session:
        job = store.find_job(session, path.id, owner())
        return _accepted(session, job) if job else not_found("job")


@blueprint.get(
    "/<id>/results",
    summary="Results of a job",
    responses={200: wire.ResultsPage, **UNCHANGED, **documented(404, 422)},
)
def results(path: IdPath, query: ResultsQuery) -> Response:
    """Picture by picture, page by page. What is finished can be read while the rest still runs; what runs shows how it
    stands. The `ETag` changes when results do, as the job's `results_version`.

    With `after` only what is new. Of what you have, previews that are not among `previews` are gone, and all else
    stays; the next `after` is the answer's `results_version`. All pages of an answer are of one version: what changes
    after the first page was given comes with the next `after`.
    """
    with context().database.reading() as session:
        job = store.find_job(session, path.id, owner())
        if job is None:
            return not_found("job")
        etag = hashlib.sha256(f"{job.results_version} {query.model_dump_json()} {__version__}".encode()).hexdigest()
        if is_known(etag):
            return unchanged(etag)
        place, until = _place(query.cursor, job)
        asked = query.model_dump(exclude={"cursor", "after"})
        page = results_page(session, path.id, **asked, after=place, since=query.after, until=until)
        cursor = None if page.cursor is None else f"{page.cursor}.{until}"
        root = url_for("artifacts.show", id="")
        shown = wire.ResultsPage(
            metrics=[_metric(metric) for metric in page.metrics],
            artifacts=[_artifact(artifact, root) for artifact in page.artifacts],
            names=names_of_results(session, path.id),
            next_cursor=cursor,
            previews=[] if job.state in ENDED_JOB else previews_of(session, path.id),
            results_version=until,
        )
        response = revalidated(answer(shown), etag)
        if cursor is not None:
            following = query.model_dump(exclude_none=True) | {"cursor": cursor}
            response.headers["Link"] = f'<{url_for("jobs.results", id=path.id, **following)}>; rel="next"'
        return response


def _place(cursor: str | None, job: Job) -> tuple[int, int]:
    """Where a page begins in the job, and the version of the results at the first page."""
    if cursor is None:
        return -1, job.results_version
    place, _, version = cursor.partition(".")
    return int(place), int(version or job.results_version)


def _submitted_before(here: Context, key: str, sha256: str) -> Response | None:
    with here.database.reading() as session:
        job = store.find_by_idempotency_key(session, key, owner())
        if job is None:
            return None
        if job.request_sha256 != sha256:
            return problem(HTTPStatus.CONFLICT, "This Idempotency-Key came with another request before.")
        return _accepted(session, job)


def _accepted(session: Session, job: Job) -> Response:
    return _answer(_detail(session, job))


def _answer(shown: wire.Job) -> Response:
    response = answer(shown, HTTPStatus.ACCEPTED)
    response.headers["Location"] = url_for("jobs.show", id=shown.id)
    response.headers["Retry-After"] = str(POLL_SECONDS)
    return response


def _summary(job: Job, standing: store.Standing) -> wire.JobSummary:
    return view(wire.JobSummary, job, **_beside(job, standing))


def _detail(session: Session, job: Job) -> wire.Job:
    standing = store.standing_of(session, [job])[job.id]
    return _whole(session, job, standing, store.images_of(session, job.id))


def _whole(session: Session, job: Job, standing: store.Standing, images: list[str]) -> wire.Job:
    return view(wire.Job, job, **_beside(job, standing), images=images, webhook=_webhook(session, job))


def _beside(job: Job, standing: store.Standing) -> dict[str, Any]:
    """The fields of the answer that the job's row does not have, or has in another form."""
    priority = Priority(job.priority).label
    return {"priority": priority, "models": standing.models, "progress": standing.progress}


def _webhook(session: Session, job: Job) -> wire.Webhook | None:
    if job.webhook is None:
        return None
    delivery = delivery_of(session, job.id)
    if delivery is None:
        return wire.Webhook(url=job.webhook)
    next_at = delivery.due_at if delivery.state == DeliveryState.WAITING else None
    return view(wire.Webhook, delivery, url=job.webhook, next_at=next_at)


def _metric(metric: Metric) -> wire.Metric:
    return view(wire.Metric, metric, image=metric.image_id)


def _artifact(artifact: Artifact, root: str) -> wire.Artifact:
    """root: beginning of the addresses of all artifacts."""
    kind = KINDS[artifact.kind]
    return view(
        wire.Artifact,
        artifact,
        model=artifact.model or None,
        image=artifact.image_id,
        formats=kind.formats,
        on_picture=kind.on_picture and artifact.image_id is not None,
        href=root + artifact.id,
    )
