"""Comparing the results that a job's models gave for the same picture."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from occluscope.analyses.contract import Outcome, Sink
from occluscope.results import Metric as GivenMetric
from occluscope.results import NamedResult, Result, Variant
from occluscope.results.comparison import compare, compare_metrics
from service.store.database import Database
from service.store.given import is_shown
from service.store.stages import models_of
from service.store.tables import Artifact, JobImage, Metric, Unit
from service.store.units import stored_result

METRICS_COMPARED = "metrics_compared"


def compare_models(database: Database, job_id: str, report: Sink) -> Outcome:
    """Compare each result that at least two models gave (same name, picture and variant), and all metrics.

    One comparison after the other is read, made and given.
    """
    with database.reading() as session:
        models = models_of(session, [job_id])[job_id]
        questions = list(_same_questions(session, job_id, models))
    for number, ((name, variant, image), ids) in enumerate(questions):
        report(number)
        comparisons = compare(_answers(database, ids))
        report.give(
            NamedResult(name, comparison, image, variant.within(compared=of)) for of, comparison in comparisons.items()
        )
    with database.reading() as session:
        table = compare_metrics(_metrics(session, job_id, models), _numbers_of_pictures(session, job_id))
    return Outcome([] if table is None else [NamedResult(METRICS_COMPARED, table)], [])


def _answers(database: Database, ids: dict[str, str]) -> dict[str, Result]:
    """The results to compare, by model."""
    with database.reading() as session:
        return {model: stored_result(session.get_one(Artifact, artifact)) for model, artifact in ids.items()}


def _same_questions(
    session: Session, job_id: str, models: list[str]
) -> Iterator[tuple[tuple[str, Variant, str | None], dict[str, str]]]:
    """Name, variant and picture, and by model, in the job's order, the id of what answers."""
    query = (
        select(Artifact.name, Artifact.variant, Artifact.image_id, Artifact.model, Artifact.id)
        .join(Unit, Unit.id == Artifact.unit_id)
        .where(Artifact.job_id == job_id, is_shown(Artifact), ~Artifact.preview)
        .order_by(Unit.position, Artifact.position)
    )
    answers: dict[Any, dict[str, str]] = {}
    for name, variant, image, model, artifact_id in session.execute(query):
        answers.setdefault((name, variant, image), {})[model] = artifact_id
    for question, ids in answers.items():
        if len(ids) > 1:
            yield question, {model: ids[model] for model in models if model in ids}


def _metrics(session: Session, job_id: str, models: list[str]) -> dict[str, list[GivenMetric]]:
    query = (
        select(Metric)
        .join(Unit, Unit.id == Metric.unit_id)
        .where(Metric.job_id == job_id, is_shown(Metric))
        .order_by(Unit.position, Metric.position)
    )
    found: dict[str, list[GivenMetric]] = {model: [] for model in models}
    for metric in session.scalars(query):
        found[metric.model].append(GivenMetric(metric.name, metric.value, metric.unit, metric.image_id, metric.variant))
    return {model: metrics for model, metrics in found.items() if metrics}


def _numbers_of_pictures(session: Session, job_id: str) -> dict[str, str]:
    query = select(JobImage.image_id, JobImage.position).where(JobImage.job_id == job_id)
    return {image: f"picture {position + 1}" for image, position in session.execute(query)}
