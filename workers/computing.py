"""What a unit gives: the comparison of its job's models, or what the stage of its analysis computes."""

from functools import partial

from occluscope import analyses, pictures
from occluscope.analyses.contract import Outcome, Sink, Work
from occluscope.errors import OccluscopeError
from occluscope.models import catalogue
from occluscope.preparation import Picture, Preparation
from service.store.comparing import compare_models
from service.store.database import Database
from service.store.images import image_content
from service.store.kept import kept_before
from service.store.leases import Claim
from service.store.states import COMPARE
from workers.model_cache import ModelCache


def computed(claim: Claim, report: Sink, database: Database, models: ModelCache) -> Outcome:
    """Compute a claimed unit. It raises whatever its analysis raises."""
    if claim.stage == COMPARE:
        return compare_models(database, claim.job_id, report)
    spec = analyses.spec(claim.analysis)
    params, card = spec.parse(claim.params), catalogue.card(claim.model, claim.owner)
    work = Work(
        card=card,
        params=params,
        unit=claim.unit,
        pictures=[_picture(database, image_id, card.preparation) for image_id in claim.unit.images],
        before=kept_before(database.reading, claim.job_id, claim.model, spec.stages_before(claim.stage)),
        model=partial(models.get, claim.model, claim.owner),
    )
    return analyses.computation(claim.analysis, claim.stage)(work, report)


def _picture(database: Database, image_id: str, preparation: Preparation) -> Picture:
    with database.reading() as session:
        content = image_content(session, image_id)
    if content is None:
        raise OccluscopeError(f"picture {image_id} is gone")
    return preparation.prepare(pictures.decode(content))
