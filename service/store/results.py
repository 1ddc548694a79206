"""What a job gave, picture by picture: pages of it, which stay small however many pictures there are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.store.given import is_shown
from service.store.tables import Artifact, JobImage, Metric, Unit


@dataclass(frozen=True)
class ResultsPage:
    """Results of some of a job's pictures, in the job's order; on the last page also those of no single picture.

    cursor: place of the page's last picture in the job, none on the last page.
    """

    metrics: list[Metric]
    artifacts: list[Artifact]
    cursor: int | None = None


def results_page(
    session: Session,
    job_id: str,
    *,
    limit: int,
    after: int = -1,
    image: str | None = None,
    name: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> ResultsPage:
    """Results of the next pictures that have any.

    limit: pictures of a page. after: the cursor of the page before. image: of this picture alone.
    name: artifacts of this name alone, with all numbers of their pictures.
    since, until: versions of the results; what is shown of units whose results last changed after and up to them.
    """
    changed = _changed(since, until)
    if image is not None:
        return _results(session, job_id, [image], name, changed)
    query = select(JobImage.position, JobImage.image_id).where(JobImage.job_id == job_id, JobImage.position > after)
    of_image = (Artifact.job_id == job_id, Artifact.image_id == JobImage.image_id)
    given = exists().where(*of_image, Unit.id == Artifact.unit_id, is_shown(Artifact), *changed)
    if name is not None:
        query = query.where(given.where(Artifact.name == name))
    else:
        of_image = (Metric.job_id == job_id, Metric.image_id == JobImage.image_id)
        numbers = exists().where(*of_image, Unit.id == Metric.unit_id, is_shown(Metric), *changed)
        query = query.where(or_(given, numbers))
    found = session.execute(query.order_by(JobImage.position).limit(limit + 1)).all()
    pictures, is_last = [image_id for _, image_id in found[:limit]], len(found) <= limit
    page = _results(session, job_id, pictures, name, changed, and_others=is_last)
    return page if is_last else replace(page, cursor=found[limit - 1].position)


def names_of_results(session: Session, job_id: str) -> list[str]:
    """Names of all artifacts that there are, whatever their page."""
    query = select(Artifact.name).join(Unit, Unit.id == Artifact.unit_id)
    return list(session.scalars(query.where(Artifact.job_id == job_id, is_shown(Artifact)).distinct()))


def previews_of(session: Session, job_id: str) -> list[str]:
    """Ids of all previews that there are, whatever their page."""
    query = select(Artifact.id).where(Artifact.job_id == job_id, Artifact.preview).order_by(Artifact.id)
    return list(session.scalars(query))


def find_artifact(session: Session, artifact_id: str) -> Artifact | None:
    """One result; one that is not shown yet is none."""
    query = select(Artifact).join(Unit, Unit.id == Artifact.unit_id)
    return session.scalar(query.where(Artifact.id == artifact_id, is_shown(Artifact)))


def _results(
    session: Session,
    job_id: str,
    pictures: Sequence[str],
    name: str | None,
    changed: Sequence[ColumnElement[bool]],
    *,
    and_others: bool = False,
) -> ResultsPage:
    """Each picture's together, in the order of units and of each analysis. and_others: and those of no picture."""
    artifacts = select(Artifact).join(Unit, Unit.id == Artifact.unit_id)
    artifacts = artifacts.where(Artifact.job_id == job_id, is_shown(Artifact), *changed)
    metrics = select(Metric).join(Unit, Unit.id == Metric.unit_id)
    metrics = metrics.where(Metric.job_id == job_id, is_shown(Metric), *changed)
    if name is not None:
        artifacts = artifacts.where(Artifact.name == name)
    place = {image: number for number, image in enumerate(pictures)}

    def wanted(image_id: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
        own = select(JobImage.image_id).where(JobImage.job_id == job_id)
        there = image_id.in_(pictures)
        return or_(there, image_id.is_(None), image_id.not_in(own)) if and_others else there

    def by_picture(row: Artifact | Metric) -> int:
        return place.get(row.image_id or "", len(place))

    artifacts = artifacts.where(wanted(Artifact.image_id)).order_by(Unit.position, Artifact.preview, Artifact.position)
    metrics = metrics.where(wanted(Metric.image_id)).order_by(Unit.position, Metric.position)
    return ResultsPage(
        sorted(session.scalars(metrics), key=by_picture), sorted(session.scalars(artifacts), key=by_picture)
    )


def _changed(since: int | None, until: int | None) -> list[ColumnElement[bool]]:
    # 0: no version is known, since a worker of an older version, during an update, ended the unit.
    after = [] if since is None else [or_(Unit.results_version > since, Unit.results_version == 0)]
    return after if until is None else [*after, Unit.results_version <= until]
