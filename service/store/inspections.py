"""Inspecting models: a unit without an analysis runs a model once, and its card is stored.

Such a unit is claimed, leased, retried and ended like every other. Its job is not shown in the API.
"""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.models.card import Description, ModelCard
from service.store.database import clock
from service.store.leases import Claim
from service.store.packing import PackedOutcome
from service.store.scheduling import note_owner
from service.store.stages import stage_of_units, waiting_units
from service.store.states import INSPECT, NO_ANALYSIS, JobState, Priority
from service.store.tables import Job, Model, new_id
from service.store.units import commit_unit

_NO_REQUEST = "0" * 64  # there was no request


def queue_inspection(session: Session, owner: str, description: Description) -> Model:
    """Store a model's description and the unit that inspects it; the caller then announces one unit."""
    note_owner(session, owner)
    moment, job_id, name = clock(session), new_id(), description.name
    planned = [PlannedUnit((), 1)]
    job = Job(
        id=job_id,
        analysis=NO_ANALYSIS,
        model=name,
        params={},
        owner=owner,
        priority=Priority.INTERACTIVE,
        state=JobState.QUEUED,
        request_sha256=_NO_REQUEST,
        created_at=moment,
        stages=[stage_of_units(job_id, 0, INSPECT, name, planned)],
    )
    job.units = waiting_units(job, INSPECT, name, planned, 0, moment)
    session.add(job)
    session.flush()
    described = description.model_dump(mode="json")
    model = Model(id=new_id(), owner=owner, name=name, description=described, job_id=job_id, created_at=moment)
    session.add(model)
    session.flush()
    return model


def description_of(session: Session, job_id: str) -> Description:
    """The model that this job inspects."""
    described = session.scalars(select(Model.description).where(Model.job_id == job_id)).one()
    return Description.model_validate(described)


def commit_inspection(session: Session, claim: Claim, card: ModelCard) -> bool:
    """End the unit and store the model's card; false, with nothing stored, if the claim is gone."""
    if not commit_unit(session, claim, PackedOutcome([], [])):
        return False
    session.execute(update(Model).where(Model.job_id == claim.job_id).values(card=card.model_dump(mode="json")))
    return True


def card_of(model: Model) -> ModelCard | None:
    """The card that a worker found; None before that, or if the inspection failed (see `Model.error`)."""
    return None if model.card is None else ModelCard.model_validate(model.card)
