"""What workers write under a claim: progress, results as they come, the unit's end.

Every change here holds only for the claim's own fencing number. A worker whose lease ran out and whose unit
was claimed again, or whose job was deleted, changes nothing and is told so.
"""

import io
from collections.abc import Sequence

import numpy as np
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from occluscope.results import Metric, Packed, Result, unpack
from service.store.changes import next_results_version, note_change
from service.store.database import clock
from service.store.ending import note_ended_unit
from service.store.given import NOTHING, Given, forget_given
from service.store.kept import kept_rows
from service.store.leases import Claim, change_held, lock_held
from service.store.locks import lock_job, share_job
from service.store.packing import PackedOutcome, PackedResult, require_none_given_before
from service.store.states import JobState, UnitState
from service.store.tables import Artifact, Unit
from service.store.tables import Metric as MetricRow
from service.store.tallies import tally


def report_progress(session: Session, claim: Claim, steps_done: int, previews: Sequence[PackedResult] = ()) -> bool:
    """Note how far the unit is, and its results as they stand; false when the claim is gone."""
    rows = [_artifact_row(claim, position, packed, preview=True) for position, packed in enumerate(previews)]
    job = lock_job(session, claim.job_id) if rows else None
    shown = {"results_version": next_results_version(job)} if job else {}
    if not change_held(session, claim, steps_done=steps_done, **shown):
        return False
    if job:
        note_change(job, of_results=True)
        session.execute(delete(Artifact).where(Artifact.unit_id == claim.unit_id, Artifact.preview))
        session.add_all(rows)
    return True


def give_results(
    session: Session,
    claim: Claim,
    before: Given,
    results: Sequence[PackedResult],
    metrics: Sequence[Metric],
    *,
    again: bool = False,
) -> bool:
    """Store what a unit that runs gave since; false, with nothing stored, when the claim is gone.

    It is shown once the unit has succeeded, and deleted where that ends otherwise. before: what it gave until then.
    again: it is tried once more, and may be stored already by a commit that was not acknowledged.

    Raises
    ------
    UnpackableError
        The unit gave one of the results before.
    """
    if not share_job(session, claim.job_id) or not lock_held(session, claim):
        return False
    if before == NOTHING or not (again and _is_stored(session, claim, before, results)):
        _store_results(session, claim, before, results, metrics)
    if before == NOTHING:
        change_held(session, claim, has_given=True)
    return True


def forget_earlier(session: Session, claim: Claim) -> tuple[bool, bool]:
    """Delete a portion of what earlier claims of the unit gave; whether the claim holds, whether nothing is left."""
    if not share_job(session, claim.job_id) or not lock_held(session, claim):
        return False, False
    return True, forget_given(session, Unit.id == claim.unit_id)


def commit_unit(session: Session, claim: Claim, outcome: PackedOutcome, before: Given = NOTHING) -> bool:
    """Store what the unit gave and end it, all or nothing; false, with nothing stored, when the claim is gone.

    before: what it gave through `give_results`.

    Raises
    ------
    UnpackableError
        The unit gave one of the results before.
    """
    if (job := lock_job(session, claim.job_id)) is None:
        return False
    moment = clock(session)
    ended = change_held(
        session,
        claim,
        state=UnitState.SUCCEEDED,
        steps_done=Unit.steps_total,
        results_version=next_results_version(job),
        finished_at=moment,
        leased_until=None,
        has_given=False,
    )
    if not ended:
        return False
    session.add_all(kept_rows(claim.unit_id, outcome.kept))
    _store_results(session, claim, before, outcome.results, outcome.metrics)
    job.stored_bytes += before.plus(outcome.results, outcome.metrics).stored_bytes
    seconds = max((moment - claim.claimed_at).total_seconds(), 0.0)
    tally(session, "unit_seconds", claim.analysis, claim.model, total=seconds)
    tally(session, "steps", claim.analysis, claim.model, count=claim.unit.steps)
    session.flush()
    note_ended_unit(session, job, claim.unit_id, claim.stage, claim.model, failed=False, steps_done=claim.unit.steps)
    return True


def fail_unit(session: Session, claim: Claim, error: str) -> bool:
    """End the unit with a reason for its user; false when the claim is gone."""
    if (job := lock_job(session, claim.job_id)) is None:
        return False
    failed = change_held(
        session, claim, state=UnitState.FAILED, error=error, finished_at=clock(session), leased_until=None
    )
    if not failed:
        return False
    tally(session, "unit_failures", claim.analysis, claim.model)
    done = session.scalar(select(Unit.steps_done).where(Unit.id == claim.unit_id)) or 0
    note_ended_unit(session, job, claim.unit_id, claim.stage, claim.model, failed=True, steps_done=done)
    return True


def fail_queued_unit(session: Session, unit_id: str, error: str) -> bool:
    """End a unit that nobody can claim, since its row or its job's cannot be read; false when it is queued no more."""
    found = session.execute(select(Unit.job_id, Unit.stage, Unit.model).where(Unit.id == unit_id)).one_or_none()
    job = lock_job(session, found.job_id) if found else None
    if found is None or job is None:
        return False
    moment = clock(session)
    failed = session.execute(
        update(Unit)
        .where(Unit.id == unit_id, Unit.state == UnitState.QUEUED)
        .values(state=UnitState.FAILED, error=error, started_at=moment, finished_at=moment)
        .returning(Unit.id)
    )
    if failed.first() is None:
        return False
    if job.state == JobState.QUEUED:
        job.state, job.started_at = JobState.RUNNING, moment
    tally(session, "unit_failures", job.analysis, found.model)
    note_ended_unit(session, job, unit_id, found.stage, found.model, failed=True, steps_done=0)
    return True


def units_by_state(session: Session) -> dict[str, int]:
    """How many units there are in each state."""
    counts: dict[str, int] = dict(session.execute(select(Unit.state, func.count()).group_by(Unit.state)).all())
    return {state: counts.get(state, 0) for state in UnitState}


def stored_result(artifact: Artifact) -> Result:
    """A result as its unit gave it, bit for bit."""
    array = None if artifact.array is None else np.load(io.BytesIO(artifact.array), allow_pickle=False)
    return unpack(artifact.kind, Packed(artifact.meta, array))


def _is_stored(session: Session, claim: Claim, before: Given, results: Sequence[PackedResult]) -> bool:
    """Whether what comes after that is there: under one claim places are given in order, each once."""
    of_unit, place = (Artifact, before.results) if results else (MetricRow, before.metrics)
    there = select(of_unit.id).where(of_unit.unit_id == claim.unit_id, of_unit.position == place)
    return session.scalar((there.where(~Artifact.preview) if results else there).limit(1)) is not None


def _store_results(
    session: Session, claim: Claim, before: Given, results: Sequence[PackedResult], metrics: Sequence[Metric]
) -> None:
    rows = [
        *(_artifact_row(claim, place, packed) for place, packed in enumerate(results, start=before.results)),
        *(_metric_row(claim, place, metric) for place, metric in enumerate(metrics, start=before.metrics)),
    ]
    while before == NOTHING and not forget_given(session, Unit.id == claim.unit_id):
        pass  # what an earlier claim left; as a rule it is gone, see `forget_earlier`
    if not before.results:
        session.add_all(rows)
        return
    try:
        with session.begin_nested():  # so that the transaction can still say which was given before
            session.add_all(rows)
    except IntegrityError:
        given = select(Artifact.name, Artifact.variant, Artifact.image_id)
        given = given.where(Artifact.unit_id == claim.unit_id, ~Artifact.preview)
        require_none_given_before(results, ((row.name, row.variant, row.image_id) for row in session.execute(given)))
        raise


def _metric_row(claim: Claim, position: int, metric: Metric) -> MetricRow:
    return MetricRow(
        job_id=claim.job_id,
        unit_id=claim.unit_id,
        position=position,
        model=claim.model,
        name=metric.name,
        variant=metric.variant,
        value=metric.value,
        unit=metric.unit,
        image_id=metric.image,
    )


def _artifact_row(claim: Claim, position: int, packed: PackedResult, *, preview: bool = False) -> Artifact:
    return Artifact(
        job_id=claim.job_id,
        unit_id=claim.unit_id,
        position=position,
        model=claim.model,
        name=packed.name,
        variant=packed.variant,
        preview=preview,
        kind=packed.kind,
        image_id=packed.image,
        shape=packed.shape,
        sha256=packed.sha256,
        meta=packed.meta,
        array=packed.array,
    )
