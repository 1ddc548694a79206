"""Computing a unit: the comparison of a job's models, or a stage of its analysis."""

from functools import partial

from PIL import Image

from occluscope import analyses, pictures
from occluscope.analyses.contract import Outcome, Work
from occluscope.errors import OccluscopeError
from occluscope.models import catalogue
from occluscope.pictures.source import PictureSource
from service.store.comparing import compare_models
from service.store.database import Database
from service.store.images import image_content
from service.store.kept import kept_before
from service.store.leases import Claim
from service.store.states import COMPARE
from workers.model_cache import ModelCache
from workers.reporting import UnitReport


def computed(claim: Claim, report: UnitReport, database: Database, models: ModelCache) -> Outcome:
    """Compute a claimed unit. Exceptions of the analysis are passed on."""
    if claim.stage == COMPARE:
        return compare_models(database, claim.job_id, report)
    spec = analyses.spec(claim.analysis)
    params, card = spec.parse(claim.params), catalogue.card(claim.model, claim.owner)
    read = partial(_read, database)
    with PictureSource(claim.unit.images, read, card.preparation, report.wait, report.note_progress) as source:
        work = Work(
            card=card,
            params=params,
            unit=claim.unit,
            pictures=source,
            before=kept_before(database.reading, claim.job_id, claim.model, spec.stages_before(claim.stage)),
            model=partial(models.get, claim.model, claim.owner),
        )
        return analyses.computation(claim.analysis, claim.stage)(work, report)


def _read(database: Database, image_id: str) -> Image.Image:
    content = image_content(database, image_id)
    if content is None:
        raise OccluscopeError(f"picture {image_id} is gone")
    return pictures.decode(content)
